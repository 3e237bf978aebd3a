package conformance;

import static conformance.Report.equal;
import static conformance.Report.required;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.UUID;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What the environment names, and what the gateway that fails on demand is asked for. */
final class Target {
    static final String ORDER = "application/x-order";
    static final String RAW = "application/octet-stream";
    static final String MISSING = "no-such-endpoint";
    static final String NOT_FOUND = "Endpoint no-such-endpoint of account \\d{12} not found\\.";
    static final String WORDS = "the model's words";
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    private Target() {}

    static String endpoint() {
        return required("CONFORMANCE_ENDPOINT");
    }

    static String asyncEndpoint() {
        return required("CONFORMANCE_ASYNC_ENDPOINT");
    }

    static String failingUrl() {
        return required("CONFORMANCE_FAILING_URL");
    }

    static String logGroup() {
        return ":log-group:/aws/sagemaker/Endpoints/" + endpoint();
    }

    static void fail(String error, int times) throws Exception {
        control("/fail?error=" + error + "&times=" + times, "POST");
    }

    static int attempts() throws Exception {
        return count("attempts");
    }

    static int connections() throws Exception {
        return count("connections");
    }

    static String unique() {
        return UUID.randomUUID().toString();
    }

    static String hash(byte[] data) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    }

    /** Every byte value, over and over. */
    static byte[] everyByte(int length) {
        byte[] data = new byte[length];
        for (int index = 0; index < length; index++) {
            data[index] = (byte) (index * 7 + (index >> 8));
        }
        return data;
    }

    /** So many visible ASCII characters. */
    static String visible(int length) {
        StringBuilder text = new StringBuilder();
        for (int index = 0; index < length; index++) {
            text.append((char) (0x21 + index % 94));
        }
        return text.toString();
    }

    private static int count(String name) throws Exception {
        Matcher found = Pattern.compile("\"" + name + "\": (\\d+)").matcher(control("/counts", "GET"));
        return found.find() ? Integer.parseInt(found.group(1)) : -1;
    }

    private static String control(String path, String method) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(required("CONFORMANCE_FAILING_CONTROL") + path))
                .method(method, HttpRequest.BodyPublishers.noBody())
                .version(HttpClient.Version.HTTP_1_1)
                .build();
        HttpResponse<String> reply = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
        equal(reply.statusCode(), 200, "the control's status");
        return reply.body();
    }
}
