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

import conformance.Report.Test;
import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import software.amazon.awssdk.awscore.client.builder.AwsClientBuilder;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;
import software.amazon.awssdk.services.sagemakerruntime.model.InternalFailureException;
import software.amazon.awssdk.services.sagemakerruntime.model.InternalStreamFailureException;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointWithResponseStreamRequest;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointWithResponseStreamResponse;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointWithResponseStreamResponseHandler;
import software.amazon.awssdk.services.sagemakerruntime.model.ModelErrorException;
import software.amazon.awssdk.services.sagemakerruntime.model.ModelStreamErrorException;
import software.amazon.awssdk.services.sagemakerruntime.model.SageMakerRuntimeException;
import software.amazon.awssdk.services.sagemakerruntime.model.ServiceUnavailableException;
import software.amazon.awssdk.services.sagemakerruntime.model.ValidationErrorException;

/** InvokeEndpointWithResponseStream, which only the asynchronous client has. */
final class Stream {
    private static final List<Caller.Kind> KINDS = List.of(Caller.Awaited::new);
    private static final Consumer<AwsClientBuilder<?, ?>> FAILING_ONCE = builder -> {
        Caller.failing(builder);
        Caller.once(builder);
    };
    private static final int PATIENCE_SECONDS = 30;

    private Stream() {}

    static void addTo(Report report) {
        report.add("stream.members-in", each(KINDS, Caller::plain, Stream::membersIn));
        report.add("stream.members-out", each(KINDS, Caller::plain, caller -> {
            Reply reply = read(caller, order("""
                    {"parts": 2, "content_type": "text/x; charset=utf-8",
                     "headers": {"X-Amzn-SageMaker-Custom-Attributes": "trace=1; b"}}"""));
            InvokeEndpointWithResponseStreamResponse head = reply.head.get();
            equal(head.contentType(), "text/x; charset=utf-8", "ContentType");
            equal(head.invokedProductionVariant(), "Main", "InvokedProductionVariant");
            equal(head.customAttributes(), "trace=1; b", "CustomAttributes");
            check(!head.responseMetadata().requestId().isEmpty(), "no request id");
            equal(reply.body.toString(), listed(2), "Body");
        }));
        report.add("stream.parts", each(KINDS, Caller::plain, caller -> {
            equal(read(caller, order("{\"parts\": 2000}")).body.toString(), listed(2000), "Body");
        }));
        report.add("stream.part-at-once", each(KINDS, Caller::plain, Stream::partAtOnce));
        report.add("stream.body-empty", roundTrip(new byte[0]));
        report.add("stream.body-binary", roundTrip(everyByte(65536)));
        report.add("stream.body-large", roundTrip(everyByte(5_000_000)));
        report.add("stream.validation-error", Errors.missing(KINDS, Stream::call));
        report.add("stream.model-error", each(KINDS, Caller::plain, caller -> {
            String what = "{\"status\": 500, \"body\": \"%s\"}".formatted(Target.WORDS);
            Invoke.modelError(failure(ModelErrorException.class, () -> read(caller, order(what))), 500);
        }));
        report.add("stream.model-stream-error", each(KINDS, Caller::once, caller -> {
            String what = "{\"parts\": 3, \"break\": true}";
            equal(broken(caller, what, ModelStreamErrorException.class).errorCode(), "StreamBroken", "ErrorCode");
            Report.note("unless told not to, the SDK calls again, and shows the parts of every attempt");
        }));
        report.add("stream.internal-stream-failure", each(KINDS, FAILING_ONCE, caller -> {
            Target.fail("InternalStreamFailure", 1);
            broken(caller, "{\"parts\": 3}", InternalStreamFailureException.class);
        }));
        report.add(
                "stream.internal-failure",
                typed(KINDS, Stream::call, "InternalFailure", InternalFailureException.class, 500));
        report.add(
                "stream.service-unavailable",
                typed(KINDS, Stream::call, "ServiceUnavailable", ServiceUnavailableException.class, 503));
        report.add("stream.retries", Errors.retries(KINDS, Stream::call, "ServiceUnavailable"));
        report.add("stream.abandoned", each(KINDS, Caller::plain, Stream::abandoned));
        report.add(
                "stream.connection-reuse",
                connectionReuse(KINDS, (caller, turn) -> read(caller, order("{\"parts\": 3}"))));
        report.add("stream.wrong-secret", Errors.wrongSecret(KINDS, Stream::call));
    }

    /** What has come of a stream. */
    private static final class Reply {
        final AtomicReference<InvokeEndpointWithResponseStreamResponse> head = new AtomicReference<>();
        final List<SdkBytes> parts = new ArrayList<>();
        final ByteArrayOutputStream body = new ByteArrayOutputStream();
        CompletableFuture<Void> done;

        void take(SdkBytes part) {
            parts.add(part);
            body.writeBytes(part.asByteArray());
        }
    }

    private static Reply begin(
            Caller caller, Consumer<InvokeEndpointWithResponseStreamRequest.Builder> given, Consumer<Reply> each) {
        Reply reply = new Reply();
        InvokeEndpointWithResponseStreamResponseHandler handler =
                InvokeEndpointWithResponseStreamResponseHandler.builder()
                        .onResponse(reply.head::set)
                        .subscriber(InvokeEndpointWithResponseStreamResponseHandler.Visitor.builder()
                                .onPayloadPart(part -> {
                                    reply.take(part.bytes());
                                    each.accept(reply);
                                })
                                .build())
                        .build();
        InvokeEndpointWithResponseStreamRequest request = InvokeEndpointWithResponseStreamRequest.builder()
                .endpointName(Target.endpoint())
                .body(SdkBytes.fromByteArray(new byte[0]))
                .applyMutation(given)
                .build();
        reply.done = ((Caller.Awaited) caller).client().invokeEndpointWithResponseStream(request, handler);
        return reply;
    }

    private static Reply read(Caller caller, Consumer<InvokeEndpointWithResponseStreamRequest.Builder> given) {
        Reply reply = begin(caller, given, each -> {});
        Caller.await(reply.done);
        return reply;
    }

    private static void call(Caller caller, String endpoint) {
        read(caller, request -> request.endpointName(endpoint == null ? Target.endpoint() : endpoint));
    }

    private static Consumer<InvokeEndpointWithResponseStreamRequest.Builder> order(String what) {
        return request -> request.contentType(ORDER).body(SdkBytes.fromUtf8String(what));
    }

    private static String listed(int number) {
        StringBuilder whole = new StringBuilder();
        for (int index = 0; index < number; index++) {
            whole.append("part-%06d\n".formatted(index));
        }
        return whole.toString();
    }

    private static Test roundTrip(byte[] body) {
        return each(KINDS, Caller::plain, caller -> {
            SdkBytes bytes = SdkBytes.fromByteArray(body);
            Reply reply = read(caller, request -> request.body(bytes).contentType(RAW).accept(RAW));
            equal(hash(reply.body.toByteArray()), hash(body), "the body's hash");
        });
    }

    /** The error that a stream ended with, after the parts that came before. */
    private static <E extends SageMakerRuntimeException> E broken(Caller caller, String what, Class<E> type)
            throws Exception {
        Reply reply = begin(caller, order(what), each -> {});
        E error = failure(type, () -> Caller.await(reply.done));
        equal(reply.body.toString(), listed(3), "the parts before");
        check(!error.awsErrorDetails().errorMessage().isEmpty(), "the error has no message");
        return error;
    }

    private static void membersIn(Caller caller) throws Exception {
        Reply reply = read(caller, request -> request.body(SdkBytes.fromUtf8String("x"))
                .contentType("text/csv; charset=utf-8")
                .accept("application/json, */*;q=0.1")
                .customAttributes("a=1; b='two', c~")
                .inferenceId("an id (with spaces)")
                .sessionId("session-1")
                .prefixAwareId("prefix")
                .targetVariant("Other"));
        equal(reply.head.get().invokedProductionVariant(), "Other", "TargetVariant");
        JsonNode saw = JsonNode.parser().parse(reply.body.toString());
        Map<String, JsonNode> headers = saw.field("headers").orElseThrow().asObject();
        equal(headers.get("content-type").asString(), "text/csv; charset=utf-8", "ContentType");
        equal(headers.get("accept").asString(), "application/json, */*;q=0.1", "Accept");
        equal(headers.get("x-amzn-sagemaker-custom-attributes").asString(), "a=1; b='two', c~", "CustomAttributes");
        equal(headers.get("x-amzn-sagemaker-inference-id").asString(), "an id (with spaces)", "InferenceId");
        equal(headers.get("x-amzn-sagemaker-session-id").asString(), "session-1", "SessionId");
        failure(
                ValidationErrorException.class,
                () -> read(caller, request -> request.inferenceComponentName("component")));
        failure(
                ValidationErrorException.class,
                () -> read(caller, request -> request.targetContainerHostname("second")));
    }

    private static void partAtOnce(Caller caller) throws Exception {
        String gate = Target.unique();
        CompletableFuture<Void> first = new CompletableFuture<>();
        Reply reply =
                begin(caller, order("{\"gate\": \"%s\"}".formatted(gate)), each -> first.complete(null));
        first.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
        caller.invoke(Invoke.order("{\"open\": \"%s\"}".formatted(gate)));
        Caller.await(reply.done);
        equal(reply.parts.stream().map(SdkBytes::asUtf8String).toList(), List.of("first", "second"), "parts");
    }

    private static void abandoned(Caller caller) throws Exception {
        CompletableFuture<Void> first = new CompletableFuture<>();
        String gate = "{\"gate\": \"%s\"}".formatted(Target.unique());
        Reply reply = begin(caller, order(gate), each -> first.complete(null));
        first.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
        reply.done.cancel(true);
        equal(read(caller, order("{\"parts\": 1}")).body.toString(), listed(1), "the next stream");
    }
}
