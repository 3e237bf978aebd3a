package conformance;

import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.function.Consumer;
import java.util.function.Function;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.awscore.client.builder.AwsClientBuilder;
import software.amazon.awssdk.awscore.retry.AwsRetryStrategy;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.services.sagemakerruntime.SageMakerRuntimeAsyncClient;
import software.amazon.awssdk.services.sagemakerruntime.SageMakerRuntimeClient;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointAsyncRequest;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointAsyncResponse;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointRequest;
import software.amazon.awssdk.services.sagemakerruntime.model.InvokeEndpointResponse;

/** The SDK's two clients by one face, so that every behaviour of a call is seen by both. */
interface Caller extends AutoCloseable {
    /** Makes a client, with more settings. */
    interface Kind extends Function<Consumer<AwsClientBuilder<?, ?>>, Caller> {}

    List<Kind> KINDS = List.of(Blocking::new, Awaited::new);

    InvokeEndpointResponse invoke(Consumer<InvokeEndpointRequest.Builder> request);

    InvokeEndpointAsyncResponse enqueue(Consumer<InvokeEndpointAsyncRequest.Builder> request);

    /** How many connections calls one after another may take. */
    int mostConnections();

    @Override
    void close();

    static void plain(AwsClientBuilder<?, ?> builder) {
        builder.overrideConfiguration(config -> {});
    }

    static void once(AwsClientBuilder<?, ?> builder) {
        builder.overrideConfiguration(config -> config.retryStrategy(AwsRetryStrategy.doNotRetry()));
    }

    /** A client of the gateway that fails on demand. */
    static void failing(AwsClientBuilder<?, ?> builder) {
        builder.endpointOverride(Target.failingUrl());
    }

    static Consumer<AwsClientBuilder<?, ?>> stranger(String accessKeyId) {
        AwsBasicCredentials credentials = AwsBasicCredentials.create(accessKeyId, "not-the-secret");
        return builder -> builder.credentialsProvider(StaticCredentialsProvider.create(credentials));
    }

    /** The members of a request that every call needs, and those given. */
    static InvokeEndpointRequest request(Consumer<InvokeEndpointRequest.Builder> given) {
        return InvokeEndpointRequest.builder()
                .endpointName(Target.endpoint())
                .body(SdkBytes.fromByteArray(new byte[0]))
                .applyMutation(given)
                .build();
    }

    static InvokeEndpointAsyncRequest asyncRequest(Consumer<InvokeEndpointAsyncRequest.Builder> given) {
        return InvokeEndpointAsyncRequest.builder()
                .endpointName(Target.asyncEndpoint())
                .applyMutation(given)
                .build();
    }

    static <T> T await(CompletableFuture<T> reply) {
        try {
            return reply.join();
        } catch (CompletionException error) {
            throw error.getCause() instanceof RuntimeException cause ? cause : error;
        }
    }

    /** SageMakerRuntimeClient. */
    record Blocking(SageMakerRuntimeClient client) implements Caller {
        Blocking(Consumer<AwsClientBuilder<?, ?>> with) {
            this(SageMakerRuntimeClient.builder().applyMutation(with::accept).build());
        }

        @Override
        public InvokeEndpointResponse invoke(Consumer<InvokeEndpointRequest.Builder> given) {
            return client.invokeEndpoint(request(given));
        }

        @Override
        public InvokeEndpointAsyncResponse enqueue(Consumer<InvokeEndpointAsyncRequest.Builder> given) {
            return client.invokeEndpointAsync(asyncRequest(given));
        }

        @Override
        public int mostConnections() {
            return 1;
        }

        @Override
        public void close() {
            client.close();
        }
    }

    /** SageMakerRuntimeAsyncClient. */
    record Awaited(SageMakerRuntimeAsyncClient client) implements Caller {
        Awaited(Consumer<AwsClientBuilder<?, ?>> with) {
            this(SageMakerRuntimeAsyncClient.builder().applyMutation(with::accept).build());
        }

        @Override
        public InvokeEndpointResponse invoke(Consumer<InvokeEndpointRequest.Builder> given) {
            return await(client.invokeEndpoint(request(given)));
        }

        @Override
        public InvokeEndpointAsyncResponse enqueue(Consumer<InvokeEndpointAsyncRequest.Builder> given) {
            return await(client.invokeEndpointAsync(asyncRequest(given)));
        }

        @Override
        public int mostConnections() {
            return 2;
        }

        @Override
        public void close() {
            client.close();
        }
    }
}
