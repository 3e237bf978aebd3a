package conformance;

import static conformance.Errors.typed;
import static conformance.Report.check;
import static conformance.Report.equal;
import static conformance.Report.failure;
import static conformance.Report.required;
import static conformance.Target.ORDER;
import static conformance.Target.RAW;
import static conformance.Target.everyByte;
import static conformance.Target.hash;

import com.amazonaws.services.s3.AmazonS3;
import com.amazonaws.services.s3.model.GetObjectMetadataRequest;
import com.amazonaws.services.s3.model.ObjectMetadata;
import com.amazonaws.services.s3.model.S3Object;
import com.amazonaws.services.sagemakerruntime.AmazonSageMakerRuntime;
import com.amazonaws.services.sagemakerruntime.model.InternalFailureException;
import com.amazonaws.services.sagemakerruntime.model.InvokeEndpointAsyncRequest;
import com.amazonaws.services.sagemakerruntime.model.InvokeEndpointAsyncResult;
import com.amazonaws.services.sagemakerruntime.model.ServiceUnavailableException;
import com.amazonaws.services.sagemakerruntime.model.ValidationErrorException;
import com.amazonaws.util.IOUtils;
import com.amazonaws.waiters.FixedDelayStrategy;
import com.amazonaws.waiters.MaxAttemptsRetryStrategy;
import com.amazonaws.waiters.PollingStrategy;
import com.amazonaws.waiters.WaiterParameters;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** InvokeEndpointAsync, which takes its input from S3 only, and its results there. */
final class Asynchronous {
    private static final AmazonS3 S3 = Clients.storage();

    private Asynchronous() {}

    /** An object in S3. */
    private record Stored(byte[] body, String contentType) {}

    static void addTo(Report report) {
        report.add("async.members-in", Asynchronous::membersIn);
        report.add("async.result", () -> {
            byte[] body = everyByte(100_000);
            InvokeEndpointAsyncRequest request = request(body).withAccept(RAW);
            InvokeEndpointAsyncResult result = invoke(request);
            equal(result.getSdkHttpMetadata().getHttpStatusCode(), 202, "status");
            String id = result.getSdkResponseMetadata().getRequestId();
            check(id != null && !id.isEmpty(), "no request id");
            equal(Clients.plain().getCachedResponseMetadata(request).getRequestId(), id, "getCachedResponseMetadata");
            check(!result.getInferenceId().isEmpty(), "no InferenceId");
            check(result.getFailureLocation().endsWith("-error.out"), result.getFailureLocation());
            Stored stored = object(result.getOutputLocation());
            equal(stored.contentType(), RAW, "the object's content type");
            equal(hash(stored.body()), hash(body), "the object's hash");
        });
        report.add("async.input-location", () -> {
            byte[] body = everyByte(5_000_000);
            InvokeEndpointAsyncResult result = invoke(request(body).withAccept(RAW));
            equal(hash(object(result.getOutputLocation()).body()), hash(body), "the object's hash");
        });
        report.add("async.failure", () -> {
            String what = "{\"status\": 500, \"body\": \"%s\"}".formatted(Target.WORDS);
            InvokeEndpointAsyncResult result = invoke(request(utf8(what)).withContentType(ORDER));
            String reason = new String(object(result.getFailureLocation()).body(), StandardCharsets.UTF_8);
            check(reason.contains(Target.WORDS), reason);
        });
        report.add("async.validation-error", () -> {
            Errors.missing(Asynchronous::call).run();
            refused(request(utf8("x")).withEndpointName(Target.endpoint()));
        });
        report.add(
                "async.internal-failure",
                typed(Asynchronous::call, "InternalFailure", InternalFailureException.class, 500));
        report.add(
                "async.service-unavailable",
                typed(Asynchronous::call, "ServiceUnavailable", ServiceUnavailableException.class, 503));
        report.add("async.retries", Errors.retries(Asynchronous::call, "ServiceUnavailable"));
        report.add("async.connection-reuse", Errors.connectionReuse((client, turn) -> call(client, null)));
        report.add("async.wrong-secret", Errors.wrongSecret(Asynchronous::call));
    }

    private static void membersIn() throws Exception {
        String id = Target.unique();
        InvokeEndpointAsyncResult result = invoke(request(utf8("x"))
                .withContentType("text/csv; charset=utf-8")
                .withAccept("application/json")
                .withCustomAttributes("a=1; b='two', c~")
                .withInferenceId(id)
                .withRequestTTLSeconds(600)
                .withInvocationTimeoutSeconds(60));
        equal(result.getInferenceId(), id, "InferenceId");
        JsonNode saw = new ObjectMapper().readTree(object(result.getOutputLocation()).body());
        JsonNode headers = saw.get("headers");
        equal(headers.get("content-type").asText(), "text/csv; charset=utf-8", "ContentType");
        equal(headers.get("accept").asText(), "application/json", "Accept");
        equal(headers.get("x-amzn-sagemaker-custom-attributes").asText(), "a=1; b='two', c~", "CustomAttributes");
        equal(headers.get("x-amzn-sagemaker-inference-id").asText(), id, "InferenceId");
        equal(saw.get("length").asInt(), 1, "length");
        refused(request(utf8("x")).withRequestTTLSeconds(59));
        refused(request(utf8("x")).withInvocationTimeoutSeconds(3601));
        Report.note("the SDK has no Body, no S3OutputPathExtension and no Filename");
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void call(AmazonSageMakerRuntime client, String endpoint) {
        InvokeEndpointAsyncRequest request = request(utf8("x"));
        client.invokeEndpointAsync(endpoint == null ? request : request.withEndpointName(endpoint));
    }

    private static InvokeEndpointAsyncResult invoke(InvokeEndpointAsyncRequest request) {
        return Clients.plain().invokeEndpointAsync(request);
    }

    private static InvokeEndpointAsyncRequest request(byte[] input) {
        return new InvokeEndpointAsyncRequest()
                .withEndpointName(Target.asyncEndpoint())
                .withInputLocation(upload(input));
    }

    private static void refused(InvokeEndpointAsyncRequest request) throws Exception {
        failure(ValidationErrorException.class, () -> invoke(request));
    }

    /** The object at an s3:// URL, once it is there. */
    private static Stored object(String location) throws IOException {
        String[] parts = location.substring("s3://".length()).split("/", 2);
        GetObjectMetadataRequest head = new GetObjectMetadataRequest(parts[0], parts[1]);
        PollingStrategy often = new PollingStrategy(new MaxAttemptsRetryStrategy(60), new FixedDelayStrategy(1));
        S3.waiters().objectExists().run(new WaiterParameters<>(head).withPollingStrategy(often));
        try (S3Object object = S3.getObject(parts[0], parts[1])) {
            return new Stored(
                    IOUtils.toByteArray(object.getObjectContent()),
                    object.getObjectMetadata().getContentType());
        }
    }

    private static String upload(byte[] body) {
        String bucket = required("CONFORMANCE_BUCKET");
        String key = "in/" + Target.unique();
        ObjectMetadata metadata = new ObjectMetadata();
        metadata.setContentLength(body.length);
        metadata.setContentType(RAW);
        S3.putObject(bucket, key, new ByteArrayInputStream(body), metadata);
        return "s3://" + bucket + "/" + key;
    }
}
