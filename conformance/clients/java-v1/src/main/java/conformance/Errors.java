package conformance;

import static conformance.Report.check;
import static conformance.Report.equal;
import static conformance.Report.failure;
import static conformance.Report.required;

import com.amazonaws.AmazonServiceException;
import com.amazonaws.services.sagemakerruntime.AmazonSageMakerRuntime;
import com.amazonaws.services.sagemakerruntime.model.ValidationErrorException;
import conformance.Report.Test;

/** What holds for the errors of every operation. */
final class Errors {
    /** Calls an operation once; endpoint null: its own. */
    interface Call {
        void to(AmazonSageMakerRuntime client, String endpoint) throws Exception;
    }

    /** One of many calls. */
    interface Turn {
        void take(AmazonSageMakerRuntime client, int turn) throws Exception;
    }

    private Errors() {}

    /** An error that the gateway shows on demand arrives as its class. */
    static Test typed(Call call, String name, Class<? extends AmazonServiceException> type, int status) {
        return () -> {
            AmazonSageMakerRuntime client =
                    Clients.failing().withClientConfiguration(Clients.once()).build();
            Target.fail(name, 1);
            AmazonServiceException error = failure(type, () -> call.to(client, null));
            coded(error, name, status);
            check(!error.getErrorMessage().isEmpty(), "the error has no message");
            client.shutdown();
        };
    }

    static Test retries(Call call, String... names) {
        return () -> {
            AmazonSageMakerRuntime client = Clients.failing().build();
            for (String name : names) {
                Target.fail(name, 2);
                call.to(client, null);
                equal(Target.attempts(), 3, "attempts at " + name);
            }
            client.shutdown();
        };
    }

    static Test missing(Call call) {
        return () -> {
            ValidationErrorException error =
                    failure(ValidationErrorException.class, () -> call.to(Clients.plain(), Target.MISSING));
            equal(error.getStatusCode(), 400, "status");
            check(error.getErrorMessage().matches(Target.NOT_FOUND), error.getErrorMessage());
        };
    }

    static Test wrongSecret(Call call) {
        return () -> refused(call, required("AWS_ACCESS_KEY_ID"), "InvalidSignatureException");
    }

    static Test unknownKey(Call call) {
        return () -> refused(call, "AKIAAAAAAAAAAAAAAAAA", "UnrecognizedClientException");
    }

    /** `use` calls once; an odd turn may be one that fails. */
    static Test connectionReuse(Turn use) {
        return () -> {
            AmazonSageMakerRuntime client = Clients.failing().build();
            int before = Target.connections();
            for (int turn = 0; turn < 20; turn++) {
                use.take(client, turn);
            }
            equal(Target.connections() - before, 1, "connections");
            client.shutdown();
        };
    }

    static void coded(AmazonServiceException error, String code, int status) {
        equal(error.getErrorCode(), code, "code");
        equal(error.getStatusCode(), status, "status");
    }

    private static void refused(Call call, String key, String code) throws Exception {
        AmazonSageMakerRuntime client = Clients.stranger(key);
        coded(failure(AmazonServiceException.class, () -> call.to(client, null)), code, 403);
        client.shutdown();
    }
}
