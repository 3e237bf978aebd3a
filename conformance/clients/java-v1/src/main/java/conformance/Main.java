package conformance;

/** The AWS SDK for Java v1 as a client: every behaviour of ../../behaviours.toml that it can show. */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) {
        Report report = new Report();
        Invoke.addTo(report);
        Asynchronous.addTo(report);
        report.run();
        Clients.plain().shutdown();
    }
}
