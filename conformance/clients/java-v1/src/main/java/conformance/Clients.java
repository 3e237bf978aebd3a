package conformance;

import static conformance.Report.required;

import com.amazonaws.ClientConfiguration;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.s3.AmazonS3;
import com.amazonaws.services.s3.AmazonS3ClientBuilder;
import com.amazonaws.services.sagemakerruntime.AmazonSageMakerRuntime;
import com.amazonaws.services.sagemakerruntime.AmazonSageMakerRuntimeClientBuilder;

/** Clients. The SDK knows AWS_REGION and the keys by itself, but not AWS_ENDPOINT_URL. */
final class Clients {
    private static final AmazonSageMakerRuntime PLAIN = builder().build();

    private Clients() {}

    static AmazonSageMakerRuntime plain() {
        return PLAIN;
    }

    static AmazonSageMakerRuntimeClientBuilder builder() {
        return at(AmazonSageMakerRuntimeClientBuilder.standard(), System.getenv("AWS_ENDPOINT_URL"));
    }

    /** Of the gateway that fails on demand. */
    static AmazonSageMakerRuntimeClientBuilder failing() {
        return at(AmazonSageMakerRuntimeClientBuilder.standard(), Target.failingUrl());
    }

    static AmazonSageMakerRuntime stranger(String accessKeyId) {
        BasicAWSCredentials credentials = new BasicAWSCredentials(accessKeyId, "not-the-secret");
        return builder()
                .withCredentials(new AWSStaticCredentialsProvider(credentials))
                .build();
    }

    static AmazonS3 storage() {
        AmazonS3ClientBuilder builder = AmazonS3ClientBuilder.standard().withPathStyleAccessEnabled(true);
        return at(builder, System.getenv("AWS_ENDPOINT_URL")).build();
    }

    static ClientConfiguration once() {
        return new ClientConfiguration().withMaxErrorRetry(0);
    }

    private static <B extends AwsClientBuilder<B, ?>> B at(B builder, String url) {
        if (url == null) {
            return builder;
        }
        return builder.withEndpointConfiguration(new EndpointConfiguration(url, required("AWS_REGION")));
    }
}
