package conformance;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;

/** Behaviours, run one after another; each outcome is printed as a line of JSON. */
final class Report {
    /** One behaviour: fails by throwing. */
    interface Test {
        void run() throws Exception;
    }

    /** What the target does not have. */
    static final class Skipped extends RuntimeException {
        Skipped(String message) {
            super(message);
        }
    }

    private static String note = "";
    private final Map<String, Test> tests = new LinkedHashMap<>();

    void add(String behaviour, Test test) {
        tests.put(behaviour, test);
    }

    void run() {
        tests.forEach((behaviour, test) -> {
            note = "";
            try {
                test.run();
                print(behaviour, "passed", note);
            } catch (Skipped skipped) {
                print(behaviour, "skipped", skipped.getMessage());
            } catch (Exception | AssertionError error) {
                System.err.print(behaviour + ": ");
                error.printStackTrace();
                print(behaviour, "failed", error.toString());
            }
        });
    }

    /** Something to know about a behaviour that passed. */
    static void note(String text) {
        note = text;
    }

    static String required(String name) {
        String value = System.getenv(name);
        if (value == null || value.isEmpty()) {
            throw new Skipped(name + " is not set");
        }
        return value;
    }

    static void equal(Object actual, Object expected, String what) {
        check(Objects.equals(actual, expected), what + ": " + shown(actual) + " instead of " + shown(expected));
    }

    static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    /** The error of this class that the call must end with. */
    static <E extends Exception> E failure(Class<E> expected, Test call) throws Exception {
        try {
            call.run();
        } catch (Exception error) {
            if (expected.isInstance(error)) {
                return expected.cast(error);
            }
            throw error;
        }
        throw new AssertionError("succeeded, where " + expected.getSimpleName() + " was expected");
    }

    private static String shown(Object value) {
        String text = String.valueOf(value);
        return text.length() > 200 ? text.substring(0, 200) + "…" : text;
    }

    private static void print(String behaviour, String outcome, String detail) {
        System.out.printf(
                "{\"behaviour\": %s, \"outcome\": %s, \"detail\": %s}%n",
                quoted(behaviour), quoted(outcome), quoted(String.valueOf(detail)));
    }

    private static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char each : text.toCharArray()) {
            if (each == '"' || each == '\\') {
                json.append('\\').append(each);
            } else if (each < 0x20 || each > 0x7e) {
                json.append(String.format("\\u%04x", (int) each));
            } else {
                json.append(each);
            }
        }
        return json.append('"').toString();
    }
}
