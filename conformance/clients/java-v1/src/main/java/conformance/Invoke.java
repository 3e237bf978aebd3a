package conformance;

import static conformance.Errors.connectionReuse;
import static conformance.Errors.typed;
import static conformance.Report.check;
import static conformance.Report.equal;
import static conformance.Report.failure;
import static conformance.Target.ORDER;
import static conformance.Target.RAW;
import static conformance.Target.everyByte;
import static conformance.Target.hash;
import static conformance.Target.visible;

import com.amazonaws.AmazonServiceException;
import com.amazonaws.ClientConfiguration;
import com.amazonaws.SdkClientException;
import com.amazonaws.services.sagemakerruntime.AmazonSageMakerRuntime;
import com.amazonaws.services.sagemakerruntime.model.InternalDependencyException;
import com.amazonaws.services.sagemakerruntime.model.InternalFailureException;
import com.amazonaws.services.sagemakerruntime.model.InvokeEndpointRequest;
import com.amazonaws.services.sagemakerruntime.model.InvokeEndpointResult;
import com.amazonaws.services.sagemakerruntime.model.ModelErrorException;
import com.amazonaws.services.sagemakerruntime.model.ModelNotReadyException;
import com.amazonaws.services.sagemakerruntime.model.ServiceUnavailableException;
import com.amazonaws.services.sagemakerruntime.model.ValidationErrorException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import conformance.Report.Test;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.stream.IntStream;

/** InvokeEndpoint. */
final class Invoke {
    private static final int MIB = 1024 * 1024;

    private Invoke() {}

    static void addTo(Report report) {
        report.add("invoke.members-in", Invoke::membersIn);
        report.add("invoke.members-out", Invoke::membersOut);
        report.add("invoke.request-id", () -> {
            InvokeEndpointRequest request = request();
            InvokeEndpointResult result = Clients.plain().invokeEndpoint(request);
            String id = result.getSdkResponseMetadata().getRequestId();
            check(id != null && !id.isEmpty(), "no request id");
            equal(Clients.plain().getCachedResponseMetadata(request).getRequestId(), id, "getCachedResponseMetadata");
            ModelErrorException error = failure(ModelErrorException.class, () -> invoke(order("{\"status\": 400}")));
            check(!error.getRequestId().isEmpty(), "the error has no request id");
        });
        report.add("invoke.body-empty", roundTrip(new byte[0]));
        report.add("invoke.body-binary", roundTrip(everyByte(65536)));
        report.add("invoke.body-large", roundTrip(everyByte(5_000_000)));
        report.add("invoke.body-too-large", () -> {
            InvokeEndpointRequest request = request().withBody(ByteBuffer.allocate(6 * MIB + 1));
            AmazonServiceException error = failure(AmazonServiceException.class, () -> invoke(request));
            Errors.coded(error, "RequestEntityTooLargeException", 413);
        });
        report.add("invoke.custom-attributes", Invoke::customAttributes);
        report.add("invoke.target-variant", () -> {
            equal(invoke(request()).getInvokedProductionVariant(), "Main", "without TargetVariant");
            InvokeEndpointResult result = invoke(request().withTargetVariant("Other"));
            equal(result.getInvokedProductionVariant(), "Other", "with TargetVariant");
            refused(request().withTargetVariant("Third"));
        });
        report.add("invoke.not-supported", () -> {
            refused(request().withTargetModel("one.tar.gz"));
            refused(request().withInferenceComponentName("component"));
            refused(request().withTargetContainerHostname("second"));
            refused(request().withEnableExplanations("`true`"));
        });
        report.add("invoke.validation-error", Errors.missing(Invoke::call));
        report.add("invoke.model-error", () -> {
            for (int status : List.of(400, 503)) {
                String what = "{\"status\": %d, \"body\": \"%s\"}".formatted(status, Target.WORDS);
                modelError(failure(ModelErrorException.class, () -> invoke(order(what))), status);
            }
        });
        report.add(
                "invoke.model-not-ready",
                typed(Invoke::call, "ModelNotReadyException", ModelNotReadyException.class, 429));
        report.add(
                "invoke.internal-failure",
                typed(Invoke::call, "InternalFailure", InternalFailureException.class, 500));
        report.add(
                "invoke.service-unavailable",
                typed(Invoke::call, "ServiceUnavailable", ServiceUnavailableException.class, 503));
        report.add(
                "invoke.internal-dependency",
                typed(Invoke::call, "InternalDependencyException", InternalDependencyException.class, 530));
        report.add("invoke.retries", Errors.retries(Invoke::call, "ServiceUnavailable", "InternalFailure"));
        report.add("invoke.no-retries", () -> {
            String name = Target.unique();
            String what = "{\"count\": \"%s\", \"status\": 500}".formatted(name);
            failure(ModelErrorException.class, () -> invoke(order(what)));
            String counted = "{\"counted\": \"%s\"}".formatted(name);
            equal(text(invoke(order(counted))), "1", "attempts");
        });
        report.add("invoke.client-timeout", () -> {
            ClientConfiguration impatient = Clients.once().withSocketTimeout(500);
            AmazonSageMakerRuntime client =
                    Clients.builder().withClientConfiguration(impatient).build();
            SdkClientException error =
                    failure(SdkClientException.class, () -> client.invokeEndpoint(order("{\"hang\": true}")));
            check(error.getMessage().contains("Read timed out"), error.getMessage());
            equal(text(client.invokeEndpoint(order("{\"body\": \"next\"}"))), "next", "the next call");
            client.shutdown();
        });
        report.add("invoke.connection-reuse", connectionReuse((client, turn) -> {
            if (turn % 2 == 0) {
                client.invokeEndpoint(request());
            } else {
                failure(ModelErrorException.class, () -> client.invokeEndpoint(order("{\"status\": 400}")));
            }
        }));
        report.add("invoke.concurrent", () -> IntStream.range(0, 32).parallel().forEach(index -> {
            ByteBuffer body = StandardCharsets.UTF_8.encode("body " + index);
            equal(text(invoke(request().withBody(body).withAccept(RAW))), "body " + index, "Body");
        }));
        report.add("invoke.wrong-secret", Errors.wrongSecret(Invoke::call));
        report.add("invoke.unknown-key", Errors.unknownKey(Invoke::call));
        report.add("invoke.close", () -> {
            AmazonSageMakerRuntime client = Clients.builder().build();
            client.invokeEndpoint(request());
            client.shutdown();
            failure(IllegalStateException.class, () -> client.invokeEndpoint(request()));
        });
    }

    static void call(AmazonSageMakerRuntime client, String endpoint) {
        client.invokeEndpoint(endpoint == null ? request() : request().withEndpointName(endpoint));
    }

    private static InvokeEndpointRequest request() {
        return new InvokeEndpointRequest().withEndpointName(Target.endpoint()).withBody(ByteBuffer.allocate(0));
    }

    private static InvokeEndpointRequest order(String what) {
        return request().withContentType(ORDER).withBody(StandardCharsets.UTF_8.encode(what));
    }

    private static InvokeEndpointResult invoke(InvokeEndpointRequest request) {
        return Clients.plain().invokeEndpoint(request);
    }

    private static String text(InvokeEndpointResult result) {
        return StandardCharsets.UTF_8.decode(result.getBody()).toString();
    }

    private static JsonNode seen(InvokeEndpointResult result) throws IOException {
        return new ObjectMapper().readTree(text(result));
    }

    private static void membersIn() throws IOException {
        JsonNode saw = seen(invoke(request()
                .withBody(StandardCharsets.UTF_8.encode("x"))
                .withContentType("text/csv; charset=utf-8")
                .withAccept("application/json, */*;q=0.1")
                .withCustomAttributes("a=1; b='two', c~")
                .withInferenceId("an id (with spaces)")
                .withTargetVariant("Other")));
        JsonNode headers = saw.get("headers");
        equal(headers.get("content-type").asText(), "text/csv; charset=utf-8", "ContentType");
        equal(headers.get("accept").asText(), "application/json, */*;q=0.1", "Accept");
        equal(headers.get("x-amzn-sagemaker-custom-attributes").asText(), "a=1; b='two', c~", "CustomAttributes");
        equal(headers.get("x-amzn-sagemaker-inference-id").asText(), "an id (with spaces)", "InferenceId");
        equal(saw.get("length").asInt(), 1, "length");
        Report.note("the SDK has no SessionId and no PrefixAwareId");
    }

    private static void membersOut() {
        InvokeEndpointResult result = invoke(order("""
                {"body": "done", "content_type": "text/x; charset=utf-8",
                 "headers": {"X-Amzn-SageMaker-Custom-Attributes": "trace=1; b"}}"""));
        equal(result.getSdkHttpMetadata().getHttpStatusCode(), 200, "status");
        equal(text(result), "done", "Body");
        equal(result.getContentType(), "text/x; charset=utf-8", "ContentType");
        equal(result.getInvokedProductionVariant(), "Main", "InvokedProductionVariant");
        equal(result.getCustomAttributes(), "trace=1; b", "CustomAttributes");
        Report.note("the SDK has no NewSessionId and no ClosedSessionId");
    }

    private static void customAttributes() throws Exception {
        JsonNode saw = seen(invoke(request().withCustomAttributes(visible(1024))));
        String came = saw.get("headers").get("x-amzn-sagemaker-custom-attributes").asText();
        equal(came, visible(1024), "CustomAttributes");
        refused(request().withCustomAttributes(visible(1025)));
        AmazonServiceException beyond = failure(
                AmazonServiceException.class, () -> invoke(request().withCustomAttributes("naïve ☃")));
        Report.note("letters beyond ASCII: " + beyond.getErrorCode());
    }

    private static void modelError(ModelErrorException error, int status) {
        equal(error.getStatusCode(), 424, "status");
        equal(error.getOriginalStatusCode(), status, "OriginalStatusCode");
        equal(error.getOriginalMessage(), Target.WORDS, "OriginalMessage");
        check(error.getLogStreamArn().endsWith(Target.logGroup()), error.getLogStreamArn());
        check(error.getErrorMessage().contains("(" + status + ") from"), error.getErrorMessage());
    }

    private static void refused(InvokeEndpointRequest request) throws Exception {
        failure(ValidationErrorException.class, () -> invoke(request));
    }

    private static Test roundTrip(byte[] body) {
        return () -> {
            InvokeEndpointResult result = invoke(
                    request().withBody(ByteBuffer.wrap(body)).withContentType(RAW).withAccept(RAW));
            byte[] back = new byte[result.getBody().remaining()];
            result.getBody().get(back);
            equal(hash(back), hash(body), "the body's hash");
        };
    }
}
