package conformance;

import static conformance.Errors.connectionReuse;
import static conformance.Errors.each;
import static conformance.Errors.typed;
import static conformance.Report.check;
import static conformance.Report.equal;
import static conformance.Report.failure;
import static conformance.Target.ORDER;
import static conformance.Target.RAW;
import static conformance.Target.everyByte;
import static conformance.Target.hash;
import static conformance.Target.visible;

import conformance.Errors.Use;
import conformance.Report.Test;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.exception.ApiCallTimeoutException;
import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;
import software.amazon.awssdk.services.sagemakerruntime.model.InternalDependencyException;
import software.amazon.awssdk.services.sagemakerruntime.model.InternalFailureException;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointRequest;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointResponse;
import software.amazon.awssdk.services.sagemakerruntime.model.ModelErrorException;
import software.amazon.awssdk.services.sagemakerruntime.model.ModelNotReadyException;
import software.amazon.awssdk.services.sagemakerruntime.model.SageMakerRuntimeException;
import software.amazon.awssdk.services.sagemakerruntime.model.ServiceUnavailableException;
import software.amazon.awssdk.services.sagemakerruntime.model.ValidationErrorException;

/** InvokeEndpoint, by the blocking client and by the asynchronous one. */
final class Invoke {
    private static final int MIB = 1024 * 1024;

    private Invoke() {}

    static void addTo(Report report) {
        report.add("invoke.members-in", with(Invoke::membersIn));
        report.add("invoke.members-out", with(Invoke::membersOut));
        report.add("invoke.request-id", with(caller -> {
            check(!caller.invoke(plain()).responseMetadata().requestId().isEmpty(), "no request id");
            ModelErrorException error = failure(
                    ModelErrorException.class, () -> caller.invoke(order("{\"status\": 400}")));
            check(!error.requestId().isEmpty(), "the error has no request id");
        }));
        report.add("invoke.body-empty", roundTrip(new byte[0]));
        report.add("invoke.body-binary", roundTrip(everyByte(65536)));
        report.add("invoke.body-large", roundTrip(everyByte(5_000_000)));
        report.add("invoke.body-too-large", with(caller -> {
            SdkBytes body = SdkBytes.fromByteArray(new byte[6 * MIB + 1]);
            SageMakerRuntimeException error =
                    failure(SageMakerRuntimeException.class, () -> caller.invoke(request -> request.body(body)));
            Errors.coded(error, "RequestEntityTooLargeException", 413);
        }));
        report.add("invoke.custom-attributes", with(Invoke::customAttributes));
        report.add("invoke.target-variant", with(caller -> {
            equal(caller.invoke(plain()).invokedProductionVariant(), "Main", "without TargetVariant");
            InvokeEndpointResponse reply = caller.invoke(request -> request.targetVariant("Other"));
            equal(reply.invokedProductionVariant(), "Other", "with TargetVariant");
            refused(caller, request -> request.targetVariant("Third"));
        }));
        report.add("invoke.not-supported", with(caller -> {
            refused(caller, request -> request.targetModel("one.tar.gz"));
            refused(caller, request -> request.inferenceComponentName("component"));
            refused(caller, request -> request.targetContainerHostname("second"));
            refused(caller, request -> request.enableExplanations("`true`"));
        }));
        report.add("invoke.validation-error", Errors.missing(Caller.KINDS, Invoke::call));
        report.add("invoke.model-error", with(caller -> {
            for (int status : List.of(400, 503)) {
                String what = "{\"status\": %d, \"body\": \"%s\"}".formatted(status, Target.WORDS);
                modelError(failure(ModelErrorException.class, () -> caller.invoke(order(what))), status);
            }
        }));
        report.add(
                "invoke.model-not-ready",
                typed(Caller.KINDS, Invoke::call, "ModelNotReadyException", ModelNotReadyException.class, 429));
        report.add(
                "invoke.internal-failure",
                typed(Caller.KINDS, Invoke::call, "InternalFailure", InternalFailureException.class, 500));
        report.add(
                "invoke.service-unavailable",
                typed(Caller.KINDS, Invoke::call, "ServiceUnavailable", ServiceUnavailableException.class, 503));
        report.add(
                "invoke.internal-dependency",
                typed(
                        Caller.KINDS,
                        Invoke::call,
                        "InternalDependencyException",
                        InternalDependencyException.class,
                        530));
        report.add(
                "invoke.retries",
                Errors.retries(Caller.KINDS, Invoke::call, "ServiceUnavailable", "InternalFailure"));
        report.add("invoke.no-retries", with(caller -> {
            String name = Target.unique();
            String what = "{\"count\": \"%s\", \"status\": 500}".formatted(name);
            failure(ModelErrorException.class, () -> caller.invoke(order(what)));
            String counted = "{\"counted\": \"%s\"}".formatted(name);
            equal(caller.invoke(order(counted)).body().asUtf8String(), "1", "attempts");
        }));
        report.add("invoke.client-timeout", with(caller -> {
            failure(
                    ApiCallTimeoutException.class,
                    () -> caller.invoke(request -> request.applyMutation(order("{\"hang\": true}"))
                            .overrideConfiguration(config -> config.apiCallTimeout(Duration.ofMillis(500)))));
            String next = caller.invoke(order("{\"body\": \"next\"}")).body().asUtf8String();
            equal(next, "next", "the next call");
        }));
        report.add("invoke.connection-reuse", connectionReuse(Caller.KINDS, (caller, turn) -> {
            if (turn % 2 == 0) {
                caller.invoke(plain());
            } else {
                failure(ModelErrorException.class, () -> caller.invoke(order("{\"status\": 400}")));
            }
        }));
        report.add("invoke.concurrent", with(caller -> IntStream.range(0, 32).parallel().forEach(index -> {
            SdkBytes body = SdkBytes.fromUtf8String("body " + index);
            equal(caller.invoke(request -> request.body(body).accept(RAW)).body(), body, "Body");
        })));
        report.add("invoke.wrong-secret", Errors.wrongSecret(Caller.KINDS, Invoke::call));
        report.add("invoke.unknown-key", Errors.unknownKey(Caller.KINDS, Invoke::call));
        report.add("invoke.close", () -> {
            for (Caller.Kind kind : Caller.KINDS) {
                Caller caller = kind.apply(Caller::plain);
                caller.invoke(plain());
                caller.close();
            }
        });
    }

    static void call(Caller caller, String endpoint) {
        caller.invoke(endpoint == null ? plain() : request -> request.endpointName(endpoint));
    }

    static Consumer<InvokeEndpointRequest.Builder> order(String what) {
        return request -> request.contentType(ORDER).body(SdkBytes.fromUtf8String(what));
    }

    static void modelError(ModelErrorException error, int status) {
        equal(error.statusCode(), 424, "status");
        equal(error.originalStatusCode(), status, "OriginalStatusCode");
        equal(error.originalMessage(), Target.WORDS, "OriginalMessage");
        check(error.logStreamArn().endsWith(Target.logGroup()), error.logStreamArn());
        String message = error.awsErrorDetails().errorMessage();
        check(message.contains("(" + status + ") from"), message);
    }

    private static void membersIn(Caller caller) {
        JsonNode saw = seen(caller.invoke(request -> request.body(SdkBytes.fromUtf8String("x"))
                .contentType("text/csv; charset=utf-8")
                .accept("application/json, */*;q=0.1")
                .customAttributes("a=1; b='two', c~")
                .inferenceId("an id (with spaces)")
                .sessionId("session-1")
                .prefixAwareId("prefix")
                .targetVariant("Other")));
        Map<String, JsonNode> headers = saw.field("headers").orElseThrow().asObject();
        equal(headers.get("content-type").asString(), "text/csv; charset=utf-8", "ContentType");
        equal(headers.get("accept").asString(), "application/json, */*;q=0.1", "Accept");
        equal(headers.get("x-amzn-sagemaker-custom-attributes").asString(), "a=1; b='two', c~", "CustomAttributes");
        equal(headers.get("x-amzn-sagemaker-inference-id").asString(), "an id (with spaces)", "InferenceId");
        equal(headers.get("x-amzn-sagemaker-session-id").asString(), "session-1", "SessionId");
        equal(saw.field("length").orElseThrow().asNumber(), "1", "length");
    }

    private static void membersOut(Caller caller) {
        InvokeEndpointResponse reply = caller.invoke(order("""
                {"body": "done", "content_type": "text/x; charset=utf-8", "headers": {
                  "X-Amzn-SageMaker-Custom-Attributes": "trace=1; b",
                  "X-Amzn-SageMaker-New-Session-Id": "s-1; Expires=2030-01-02T03:04:05Z",
                  "X-Amzn-SageMaker-Closed-Session-Id": "s-0"}}"""));
        equal(reply.sdkHttpResponse().statusCode(), 200, "status");
        equal(reply.body().asUtf8String(), "done", "Body");
        equal(reply.contentType(), "text/x; charset=utf-8", "ContentType");
        equal(reply.invokedProductionVariant(), "Main", "InvokedProductionVariant");
        equal(reply.customAttributes(), "trace=1; b", "CustomAttributes");
        equal(reply.newSessionId(), "s-1; Expires=2030-01-02T03:04:05Z", "NewSessionId");
        equal(reply.closedSessionId(), "s-0", "ClosedSessionId");
    }

    private static void customAttributes(Caller caller) throws Exception {
        JsonNode saw = seen(caller.invoke(request -> request.customAttributes(visible(1024))));
        JsonNode came = saw.field("headers").orElseThrow().asObject().get("x-amzn-sagemaker-custom-attributes");
        equal(came.asString(), visible(1024), "CustomAttributes");
        refused(caller, request -> request.customAttributes(visible(1025)));
        SdkException beyond = failure(
                SdkException.class, () -> caller.invoke(request -> request.customAttributes("naïve ☃")));
        Report.note("letters beyond ASCII: " + beyond.getClass().getSimpleName());
    }

    private static void refused(Caller caller, Consumer<InvokeEndpointRequest.Builder> given) throws Exception {
        failure(ValidationErrorException.class, () -> caller.invoke(given));
    }

    private static JsonNode seen(InvokeEndpointResponse reply) {
        return JsonNode.parser().parse(reply.body().asUtf8String());
    }

    private static Consumer<InvokeEndpointRequest.Builder> plain() {
        return request -> {};
    }

    private static Test with(Use use) {
        return each(Caller.KINDS, Caller::plain, use);
    }

    private static Test roundTrip(byte[] body) {
        return with(caller -> {
            InvokeEndpointResponse reply =
                    caller.invoke(request -> request.body(SdkBytes.fromByteArray(body)).contentType(RAW).accept(RAW));
            equal(hash(reply.body().asByteArray()), hash(body), "the body's hash");
        });
    }
}
