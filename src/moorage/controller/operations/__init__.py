"""The operations of the SageMaker control plane that this server has: one name for operation and function."""

from collections.abc import Mapping
from types import MappingProxyType

from moorage.controller.operations import endpoint_configs, endpoint_policies, endpoints, models, tags
from moorage.controller.operations.base import Call, Operation

__all__ = ["OPERATIONS", "Call", "Operation"]

OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "CreateModel": models.create_model,
        "DescribeModel": models.describe_model,
        "ListModels": models.list_models,
        "DeleteModel": models.delete_model,
        "CreateEndpointConfig": endpoint_configs.create_endpoint_config,
        "DescribeEndpointConfig": endpoint_configs.describe_endpoint_config,
        "ListEndpointConfigs": endpoint_configs.list_endpoint_configs,
        "DeleteEndpointConfig": endpoint_configs.delete_endpoint_config,
        "CreateEndpoint": endpoints.create_endpoint,
        "DescribeEndpoint": endpoints.describe_endpoint,
        "ListEndpoints": endpoints.list_endpoints,
        "UpdateEndpoint": endpoints.update_endpoint,
        "DeleteEndpoint": endpoints.delete_endpoint,
        "PutEndpointPolicy": endpoint_policies.put_endpoint_policy,
        "GetEndpointPolicy": endpoint_policies.get_endpoint_policy,
        "DeleteEndpointPolicy": endpoint_policies.delete_endpoint_policy,
        "AddTags": tags.add_tags,
        "ListTags": tags.list_tags,
        "DeleteTags": tags.delete_tags,
    }
)
