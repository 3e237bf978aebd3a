package conformance;

/** The AWS SDK for Java v2 as a client: every behaviour of ../../behaviours.toml that it can show. */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) {
        Report report = new Report();
        Invoke.addTo(report);
        Stream.addTo(report);
        Asynchronous.addTo(report);
        // As long as one asynchronous client is open, the threads that they share need not be ended and begun again.
        try (Caller open = new Caller.Awaited(Caller::plain)) {
            report.run();
        }
    }
}
