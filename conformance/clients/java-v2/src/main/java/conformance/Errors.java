package conformance;

import static conformance.Report.check;
import static conformance.Report.equal;
import static conformance.Report.failure;
import static conformance.Report.required;

import conformance.Report.Test;
import java.util.function.Consumer;
import software.amazon.awssdk.awscore.client.builder.AwsClientBuilder;
import software.amazon.awssdk.services.sagemakerruntime.model.SageMakerRuntimeException;
import software.amazon.awssdk.services.sagemakerruntime.model.ValidationErrorException;

/** What holds for the errors of every operation. */
final class Errors {
    /** Something that has a client for a while. */
    interface Use {
        void with(Caller caller) throws Exception;
    }

    /** Calls an operation once; endpoint null: its own. */
    interface Call {
        void to(Caller caller, String endpoint) throws Exception;
    }

    private Errors() {}

    /** The same with each of the SDK's clients. */
    static Test each(Iterable<Caller.Kind> kinds, Consumer<AwsClientBuilder<?, ?>> with, Use use) {
        return () -> {
            for (Caller.Kind kind : kinds) {
                try (Caller caller = kind.apply(with)) {
                    use.with(caller);
                }
            }
        };
    }

    /** An error that the gateway shows on demand arrives as its class. */
    static Test typed(
            Iterable<Caller.Kind> kinds,
            Call call,
            String name,
            Class<? extends SageMakerRuntimeException> type,
            int status) {
        Consumer<AwsClientBuilder<?, ?>> with = Caller::failing;
        return each(kinds, with.andThen(Caller::once), caller -> {
            Target.fail(name, 1);
            SageMakerRuntimeException error = failure(type, () -> call.to(caller, null));
            coded(error, name, status);
            check(!error.awsErrorDetails().errorMessage().isEmpty(), "the error has no message");
        });
    }

    static Test retries(Iterable<Caller.Kind> kinds, Call call, String... names) {
        return each(kinds, Caller::failing, caller -> {
            for (String name : names) {
                Target.fail(name, 2);
                call.to(caller, null);
                equal(Target.attempts(), 3, "attempts at " + name);
            }
        });
    }

    static Test missing(Iterable<Caller.Kind> kinds, Call call) {
        return each(kinds, Caller::once, caller -> {
            ValidationErrorException error =
                    failure(ValidationErrorException.class, () -> call.to(caller, Target.MISSING));
            equal(error.statusCode(), 400, "status");
            String message = error.awsErrorDetails().errorMessage();
            check(message.matches(Target.NOT_FOUND), message);
        });
    }

    static Test wrongSecret(Iterable<Caller.Kind> kinds, Call call) {
        return () -> refused(kinds, call, required("AWS_ACCESS_KEY_ID"), "InvalidSignatureException");
    }

    static Test unknownKey(Iterable<Caller.Kind> kinds, Call call) {
        return () -> refused(kinds, call, "AKIAAAAAAAAAAAAAAAAA", "UnrecognizedClientException");
    }

    /**
     * `use` calls once; an odd turn may be one that fails. The asynchronous client answers a moment before its
     * connection is back in the pool, so the next call may open a second one.
     */
    static Test connectionReuse(Iterable<Caller.Kind> kinds, Turn use) {
        return each(kinds, Caller::failing, caller -> {
            int before = Target.connections();
            for (int turn = 0; turn < 20; turn++) {
                use.take(caller, turn);
            }
            int opened = Target.connections() - before;
            check(opened <= caller.mostConnections(), opened + " connections");
            Report.note(opened + " by the last client");
        });
    }

    /** One of many calls. */
    interface Turn {
        void take(Caller caller, int turn) throws Exception;
    }

    static void coded(SageMakerRuntimeException error, String code, int status) {
        equal(error.awsErrorDetails().errorCode(), code, "code");
        equal(error.statusCode(), status, "status");
    }

    private static void refused(Iterable<Caller.Kind> kinds, Call call, String key, String code) throws Exception {
        Use use = caller ->
                coded(failure(SageMakerRuntimeException.class, () -> call.to(caller, null)), code, 403);
        each(kinds, Caller.stranger(key), use).run();
    }
}
