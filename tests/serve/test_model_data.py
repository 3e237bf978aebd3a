"""Models whose files lie in S3 as they are, without an archive."""

from tests.servers import MODELHOST, ROLE, MoorageServer

CODE = "def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return b, 'text/plain'\n"


def test_a_prefix_is_a_model_directory(server: MoorageServer) -> None:
    s3, sagemaker = server.client("s3"), server.client("sagemaker")
    s3.create_bucket(Bucket="loose")
    s3.put_object(Bucket="loose", Key="model/code/inference.py", Body=CODE)
    s3.put_object(Bucket="loose", Key="model/weights/first.bin", Body=b"1")
    source = {"S3Uri": "s3://loose/model/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {"Image": MODELHOST, "ModelDataSource": {"S3DataSource": source}}
    sagemaker.create_model(ModelName="loose", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "v",
        "ModelName": "loose",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName="loose", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="loose", EndpointConfigName="loose")
    endpoint = server.wait_for("loose", "InService", "Failed")
    assert endpoint["EndpointStatus"] == "InService", endpoint.get("FailureReason")
    reply = server.client("sagemaker-runtime").invoke_endpoint(EndpointName="loose", Body=b"hello")
    assert reply["Body"].read() == b"hello"
    assert list((server.data_dir / "instances").glob("*/model/weights/first.bin"))
