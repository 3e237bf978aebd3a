package conformance;

import static conformance.Errors.each;
import static conformance.Errors.typed;
import static conformance.Report.check;
import static conformance.Report.equal;
import static conformance.Report.failure;
import static conformance.Report.required;
import static conformance.Target.ORDER;
import static conformance.Target.RAW;
import static conformance.Target.everyByte;
import static conformance.Target.hash;

import conformance.Errors.Use;
import conformance.Report.Test;
import java.time.Duration;
import java.util.Map;
import java.util.function.Consumer;
import software.amazon.awssdk.core.ResponseBytes;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;
import software.amazon.awssdk.retries.api.BackoffStrategy;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.model.GetObjectResponse;
import software.amazon.awssdk.services.s3.model.HeadObjectRequest;
import software.amazon.awssdk.services.s3.waiters.S3Waiter;
import software.amazon.awssdk.services.sagemakerruntime.model.InternalFailureException;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointAsyncRequest;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointAsyncResponse;
import software.amazon.awssdk.services.sagemakerruntime.model.ServiceUnavailableException;
import software.amazon.awssdk.services.sagemakerruntime.model.ValidationErrorException;

/** InvokeEndpointAsync, by the blocking client and by the asynchronous one, and its results in S3. */
final class Asynchronous {
    private static final S3Client S3 = S3Client.builder().forcePathStyle(true).build();
    private static final SdkBytes X = SdkBytes.fromUtf8String("x");

    private Asynchronous() {}

    static void addTo(Report report) {
        report.add("async.members-in", with(Asynchronous::membersIn));
        report.add("async.result", with(caller -> {
            byte[] body = everyByte(100_000);
            InvokeEndpointAsyncResponse reply =
                    caller.enqueue(request -> request.body(SdkBytes.fromByteArray(body)).accept(RAW));
            equal(reply.sdkHttpResponse().statusCode(), 202, "status");
            check(!reply.responseMetadata().requestId().isEmpty(), "no request id");
            check(!reply.inferenceId().isEmpty(), "no InferenceId");
            check(reply.failureLocation().endsWith("-error.out"), reply.failureLocation());
            ResponseBytes<GetObjectResponse> result = object(reply.outputLocation());
            equal(result.response().contentType(), RAW, "the object's content type");
            equal(hash(result.asByteArray()), hash(body), "the object's hash");
        }));
        report.add("async.input-location", with(caller -> {
            byte[] body = everyByte(5_000_000);
            String location = upload(body);
            InvokeEndpointAsyncResponse reply =
                    caller.enqueue(request -> request.inputLocation(location).accept(RAW));
            equal(hash(object(reply.outputLocation()).asByteArray()), hash(body), "the object's hash");
        }));
        report.add("async.failure", with(caller -> {
            String what = "{\"status\": 500, \"body\": \"%s\"}".formatted(Target.WORDS);
            InvokeEndpointAsyncResponse reply = caller.enqueue(
                    request -> request.contentType(ORDER).body(SdkBytes.fromUtf8String(what)));
            String reason = object(reply.failureLocation()).asUtf8String();
            check(reason.contains(Target.WORDS), reason);
        }));
        report.add("async.body-and-location", with(caller -> {
            refused(caller, request -> request.body(X).inputLocation("s3://bucket/key"));
            refused(caller, request -> {});
        }));
        report.add("async.body-too-large", with(caller -> {
            refused(caller, request -> request.body(SdkBytes.fromByteArray(new byte[128_001])));
        }));
        report.add("async.validation-error", () -> {
            Errors.missing(Caller.KINDS, Asynchronous::call).run();
            with(caller -> refused(caller, request -> request.body(X).endpointName(Target.endpoint())))
                    .run();
        });
        report.add(
                "async.internal-failure",
                typed(Caller.KINDS, Asynchronous::call, "InternalFailure", InternalFailureException.class, 500));
        report.add(
                "async.service-unavailable",
                typed(
                        Caller.KINDS,
                        Asynchronous::call,
                        "ServiceUnavailable",
                        ServiceUnavailableException.class,
                        503));
        report.add("async.retries", Errors.retries(Caller.KINDS, Asynchronous::call, "ServiceUnavailable"));
        report.add(
                "async.connection-reuse",
                Errors.connectionReuse(Caller.KINDS, (caller, turn) -> call(caller, null)));
        report.add("async.wrong-secret", Errors.wrongSecret(Caller.KINDS, Asynchronous::call));
    }

    private static void membersIn(Caller caller) throws Exception {
        String id = Target.unique();
        InvokeEndpointAsyncResponse reply = caller.enqueue(request -> request.body(X)
                .contentType("text/csv; charset=utf-8")
                .accept("application/json")
                .customAttributes("a=1; b='two', c~")
                .inferenceId(id)
                .requestTTLSeconds(600)
                .invocationTimeoutSeconds(60)
                .s3OutputPathExtension("extension/" + id)
                .filename("result.json"));
        equal(reply.inferenceId(), id, "InferenceId");
        check(reply.outputLocation().endsWith("/extension/" + id + "/result.json"), reply.outputLocation());
        JsonNode saw = JsonNode.parser().parse(object(reply.outputLocation()).asUtf8String());
        Map<String, JsonNode> headers = saw.field("headers").orElseThrow().asObject();
        equal(headers.get("content-type").asString(), "text/csv; charset=utf-8", "ContentType");
        equal(headers.get("accept").asString(), "application/json", "Accept");
        equal(headers.get("x-amzn-sagemaker-custom-attributes").asString(), "a=1; b='two', c~", "CustomAttributes");
        equal(headers.get("x-amzn-sagemaker-inference-id").asString(), id, "InferenceId");
        equal(saw.field("length").orElseThrow().asNumber(), "1", "length");
        refused(caller, request -> request.body(X).requestTTLSeconds(59));
        refused(caller, request -> request.body(X).invocationTimeoutSeconds(3601));
    }

    private static void call(Caller caller, String endpoint) {
        caller.enqueue(request -> request.body(X).endpointName(endpoint == null ? Target.asyncEndpoint() : endpoint));
    }

    private static void refused(Caller caller, Consumer<InvokeEndpointAsyncRequest.Builder> given) throws Exception {
        failure(ValidationErrorException.class, () -> caller.enqueue(given));
    }

    private static Test with(Use use) {
        return each(Caller.KINDS, Caller::plain, use);
    }

    /** The object at an s3:// URL, once it is there. */
    private static ResponseBytes<GetObjectResponse> object(String location) {
        String[] parts = location.substring("s3://".length()).split("/", 2);
        try (S3Waiter waiter = S3Waiter.builder()
                .client(S3)
                .overrideConfiguration(config -> config.maxAttempts(600)
                        .backoffStrategyV2(BackoffStrategy.fixedDelay(Duration.ofMillis(100))))
                .build()) {
            waiter.waitUntilObjectExists(
                    HeadObjectRequest.builder().bucket(parts[0]).key(parts[1]).build());
        }
        return S3.getObjectAsBytes(request -> request.bucket(parts[0]).key(parts[1]));
    }

    private static String upload(byte[] body) {
        String bucket = required("CONFORMANCE_BUCKET");
        String key = "in/" + Target.unique();
        S3.putObject(request -> request.bucket(bucket).key(key), RequestBody.fromBytes(body));
        return "s3://" + bucket + "/" + key;
    }
}
