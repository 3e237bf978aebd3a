"""From an endpoint configuration to the instances it asks for: pure planning, and the files an instance needs.

A `DeploymentPlan` is a snapshot of everything a deployment is made from, in the form in which it is stored with the
endpoint (`Endpoint.deployed`): what a running endpoint is does not change when its configuration or models do.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.config import Settings
from moorage.controller import artifacts, images
from moorage.controller.file_workers import FileWorker, FileWorkers, WorkerLost
from moorage.controller.log_files import directory_of
from moorage.launchers.base import InstanceSpec
from moorage.resources import ROLE_EXISTS, Definition, Endpoint, EndpointConfig, Model
from moorage.storage.base import ResourceStore
from moorage.storage.objects import (
    ObjectAccessDenied,
    ObjectError,
    Objects,
    ObjectStore,
    ObjectTooLarge,
    RoleRefused,
)

_NICENESS = 5
"""Of processes that unpack: they leave the processors to what answers callers, but an update under load gets on."""
_NICENESS_OF_REMOVALS = 15
logger = logging.getLogger(__name__)


class DeploymentFailed(Exception):
    """A deployment cannot be; the text becomes the endpoint's FailureReason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """A production variant and the container its instances run."""

    variant: Definition
    model: Definition
    container: Definition
    network_isolation: bool = False

    @property
    def name(self) -> str:
        return str(self.variant["VariantName"])

    @property
    def weight(self) -> float:
        return float(self.variant.get("InitialVariantWeight", 1.0))

    @property
    def instance_count(self) -> int:
        return int(self.variant.get("InitialInstanceCount", 1))

    @property
    def role_arn(self) -> str | None:
        """The execution role of the model; None: it has none, and stands for its account."""
        return self.model.get("ExecutionRoleArn")

    @property
    def role_exists(self) -> bool:
        """Whether that role existed when the model was made."""
        return ROLE_EXISTS in self.model

    @property
    def container_hostname(self) -> str:
        return str(self.container.get("ContainerHostname", "primary"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPlan:
    endpoint_config: Definition
    variants: tuple[VariantPlan, ...]

    @property
    def async_inference_config(self) -> Definition | None:
        """None for an endpoint that is invoked synchronously."""
        return self.endpoint_config.get("AsyncInferenceConfig")

    @property
    def role_arn(self) -> str | None:
        """The execution role that reads the inputs and writes the results of asynchronous invocations: that of the
        first variant's model, since which variant will answer is not known when one is accepted."""
        return self.variants[0].role_arn

    @property
    def role_exists(self) -> bool:
        return self.variants[0].role_exists

    @property
    def topics(self) -> frozenset[str]:
        """Those that are told how asynchronous invocations end."""
        config = self.async_inference_config or {}
        notification = config.get("OutputConfig", {}).get("NotificationConfig", {})
        return frozenset(
            notification[name] for name in ("SuccessTopic", "ErrorTopic") if notification.get(name)
        )

    def to_document(self, *, resolution_time: float) -> dict[str, Any]:
        """As it is stored with the endpoint; `from_document` reads it back."""
        return {
            "EndpointConfig": self.endpoint_config,
            "Models": {str(plan.variant["ModelName"]): plan.model for plan in self.variants},
            "ProductionVariants": [
                {
                    "VariantName": plan.name,
                    "ModelName": plan.variant["ModelName"],
                    "InitialVariantWeight": plan.weight,
                    "InitialInstanceCount": plan.instance_count,
                    "Images": [
                        {
                            "SpecifiedImage": plan.container["Image"],
                            "ResolvedImage": plan.container["Image"],
                            "ResolutionTime": resolution_time,
                        }
                    ],
                }
                for plan in self.variants
            ],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "DeploymentPlan":
        config, models = document["EndpointConfig"], document["Models"]
        return cls(endpoint_config=config, variants=_variants(config, models))


async def plan_deployment(store: ResourceStore, endpoint: Endpoint) -> DeploymentPlan:
    """Read the configuration that an endpoint is to have, and the models it names.

    Raises:
        DeploymentFailed: something is gone meanwhile, or is not supported.
    """
    assert endpoint.target_config_name is not None
    config = await store.get(EndpointConfig, endpoint.account_id, endpoint.target_config_name)
    if config is None:
        raise DeploymentFailed(
            f"The endpoint configuration {endpoint.target_config_name} was deleted before the endpoint was made."
        )
    models: dict[str, Definition] = {}
    for variant in config.definition["ProductionVariants"]:
        name = variant["ModelName"]
        model = await store.get(Model, endpoint.account_id, name)
        if model is None:
            raise DeploymentFailed(f"The model {name} was deleted before the endpoint was made.")
        models[name] = model.definition
    return DeploymentPlan(endpoint_config=config.definition, variants=_variants(config.definition, models))


def _variants(config: Definition, models: Mapping[str, Definition]) -> tuple[VariantPlan, ...]:
    plans = []
    for variant in config["ProductionVariants"]:
        model = models[variant["ModelName"]]
        plans.append(
            VariantPlan(
                variant=variant,
                model=model,
                container=_only_container(variant, model),
                network_isolation=any(each.get("EnableNetworkIsolation") for each in (config, model)),
            )
        )
    return tuple(plans)


def _only_container(variant: Definition, model: Definition) -> Definition:
    containers = [model["PrimaryContainer"]] if "PrimaryContainer" in model else model["Containers"]
    name = variant["ModelName"]
    if len(containers) != 1:
        raise DeploymentFailed(
            f"The model {name} has {len(containers)} containers. This server runs models of one container only."
        )
    container: Definition = containers[0]
    if container.get("Mode") == "MultiModel":
        raise DeploymentFailed(f"The model {name} is a multi-model one, which this server does not run yet.")
    if "Image" not in container:
        raise DeploymentFailed(
            f"The model {name} names a model package. This server runs models that name an Image only."
        )
    return container


def _is_of_installers(variable: str) -> bool:
    return variable.startswith(("PIP_", "UV_"))


class InstanceWorkshop:
    """Makes what an instance needs before it can be launched: its directory with the model, its command line.

    What takes long is done in processes of their own, in the turn of the account; removals apart from the rest, so
    that neither waits for the other. A directory to be removed is moved to `<data>/discarded` at once and removed
    later: no deletion of an endpoint waits for it, and the next start goes on where a crash left off.
    """

    def __init__(self, *, settings: Settings, objects: Objects) -> None:
        self._settings = settings
        self._objects = objects
        self._workers = FileWorkers(niceness=_NICENESS)
        self._removers = FileWorkers(niceness=_NICENESS_OF_REMOVALS, parallel=1, most=1)
        self._removals: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End the processes. What was to be removed is removed after the next start."""
        for removal in self._removals:
            removal.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)
        await asyncio.gather(self._workers.close(), self._removers.close())

    async def prepare(
        self, endpoint: Endpoint, plan: VariantPlan, deployment_id: str, *, keep_trying: bool
    ) -> InstanceSpec:
        """Unpack the model into a new instance's own directory.

        Raises:
            DeploymentFailed: no such image, or an artifact that is missing, unreadable or unsafe.
        """
        try:
            image = images.resolve(str(plan.container["Image"]), self._settings.images)
        except images.UnknownImage as error:
            raise DeploymentFailed(str(error)) from error
        instance_id = f"i-{uuid.uuid4().hex[:17]}"
        base_dir = self.directory(instance_id)
        environment = dict(plan.container.get("Environment", {}))
        cache_dir = ""
        objects = self._objects.acting_as(
            endpoint.account_id, plan.role_arn, source_arn=endpoint.arn, role_exists=plan.role_exists
        )
        try:
            await objects.check()
            async with self._workers.worker(endpoint.account_id) as worker:
                (base_dir / "model").mkdir(parents=True)
                await self._fetch_model(worker, objects, plan, base_dir)
                if image.is_model_host:
                    await self._fetch_submitted_code(worker, objects, plan, environment, base_dir)
                    cache_dir = str(self.environment_of(endpoint, plan))
                    environment["MOORAGE_ENVIRONMENTS_DIR"] = cache_dir
                    environment.setdefault("MOORAGE_MODEL_FAMILY", image.family)
                    environment.setdefault("MOORAGE_FRAMEWORK_VERSION", image.version)
                    environment.setdefault("MOORAGE_FRAMEWORK_VERSIONS", self._settings.framework_versions)
                    if self._settings.pass_package_settings:
                        for name in filter(_is_of_installers, os.environ):
                            environment.setdefault(name, os.environ[name])
                await worker.run("make_readable", directory=str(base_dir))
        except RoleRefused as error:
            self.discard(instance_id)
            raise DeploymentFailed(str(error)) from error
        except WorkerLost as error:
            self.discard(instance_id)
            raise DeploymentFailed(
                f'The model of container "{plan.container_hostname}" could not be unpacked: {error}.'
            ) from error
        except OSError as error:
            self.discard(instance_id)
            raise DeploymentFailed(
                f'The model of container "{plan.container_hostname}" could not be written to {base_dir}: '
                f"{error.strerror or error}."
            ) from error
        except BaseException:
            self.discard(instance_id)
            raise
        return InstanceSpec(
            instance_id=instance_id,
            account_id=endpoint.account_id,
            endpoint_name=endpoint.name,
            variant_name=plan.name,
            deployment_id=deployment_id,
            container_hostname=plan.container_hostname,
            argv=image.argv,
            environment=environment,
            base_dir=str(base_dir),
            log_file=str(directory_of(self._settings.log_dir, endpoint) / plan.name / f"{instance_id}.log"),
            startup_timeout_seconds=float(
                plan.variant.get(
                    "ContainerStartupHealthCheckTimeoutInSeconds", self._settings.startup_timeout_seconds
                )
            ),
            network_isolation=plan.network_isolation,
            role_arn=plan.role_arn,
            role_exists=plan.role_exists,
            credentials_secret="" if plan.network_isolation else secrets.token_urlsafe(32),
            cache_dir=cache_dir,
            keep_trying=keep_trying,
        )

    def environment_of(self, endpoint: Endpoint, plan: VariantPlan) -> Path:
        """Of one variant alone: what a model installs there could be anything, and others would run it."""
        name = f"{endpoint.account_id}/{endpoint.name}/{plan.name}"
        return self._settings.data_dir / "environments" / hashlib.sha256(name.encode()).hexdigest()[:16]

    def directory(self, instance_id: str) -> Path:
        return self._settings.data_dir / "instances" / instance_id

    def discard(self, instance_id: str) -> None:
        """Put away the directory of an instance that is gone; it is removed later."""
        directory = self.directory(instance_id)
        with suppress(OSError):  # nothing has come into it: the object was not there
            (directory / "model").rmdir()
            directory.rmdir()
        self.put_away(directory)

    def put_away(self, path: Path) -> None:
        """Let a file or a directory vanish from its place now, and be removed later. It may be gone already."""
        discarded = self._discarded / f"{uuid.uuid4().hex}-{path.name}"
        try:
            self._discarded.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                path.rename(discarded)
                self._remove_later(discarded)
        except OSError as error:
            logger.warning("%s cannot be removed, and is tried again at the next start: %s", path, error)

    async def remove(self, path: Path) -> None:
        """Remove a file or a directory, behind all else that is to be removed."""
        try:
            await self._removers.run("", "remove", path=str(path))
        except (OSError, WorkerLost) as error:
            logger.warning("%s cannot be removed, and is tried again at the next start: %s", path, error)

    async def remove_unfinished_uploads(self, *, older_than: float) -> None:
        """Remove multipart uploads to the embedded S3 that nobody has finished, nor sent a part of since that time,
        in seconds since 1970."""
        root = self._settings.data_dir / "s3"
        arguments = {"root": str(root), "metadata": f"{root}-metadata", "older_than": older_than}
        await self._removers.run("", "remove_unfinished_uploads", **arguments)

    def discard_all_but(self, instance_ids: set[str]) -> None:
        """Put away what instances of an earlier run have left, and go on removing what it had put away."""
        if self._discarded.is_dir():
            for path in self._discarded.iterdir():
                self._remove_later(path)
        directory = self._settings.data_dir / "instances"
        if directory.is_dir():
            for path in list(directory.iterdir()):
                if path.name not in instance_ids:
                    self.discard(path.name)

    @property
    def _discarded(self) -> Path:
        return self._settings.data_dir / "discarded"

    def _remove_later(self, path: Path) -> None:
        removal = asyncio.get_running_loop().create_task(self.remove(path), name=f"remove {path.name}")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def _fetch_model(
        self, worker: FileWorker, objects: ObjectStore, plan: VariantPlan, base_dir: Path
    ) -> None:
        container, model_dir = plan.container, base_dir / "model"
        source = container.get("ModelDataSource", {}).get("S3DataSource")
        if container.get("ModelDataUrl"):
            await self._fetch_archive(worker, objects, plan, str(container["ModelDataUrl"]), model_dir)
        elif source and source.get("CompressionType") == "Gzip":
            await self._fetch_archive(worker, objects, plan, str(source["S3Uri"]), model_dir)
        elif source:
            await self._fetch_uncompressed(objects, plan, source, model_dir)

    async def _fetch_archive(
        self, worker: FileWorker, objects: ObjectStore, plan: VariantPlan, url: str, destination: Path
    ) -> None:
        archive = destination.with_name(f"{destination.name}.tar.gz")
        try:
            await objects.download(
                url,
                archive,
                max_bytes=self._settings.max_model_bytes + artifacts.MAX_OVERHEAD_BYTES,
                keep_free_bytes=self._settings.disk_reserve_bytes,
            )
            if destination.exists():
                destination.rmdir()
            await worker.run(
                "unpack",
                archive=str(archive),
                destination=str(destination),
                max_bytes=self._settings.max_model_bytes,
                keep_free_bytes=self._settings.disk_reserve_bytes,
            )
        except (FileNotFoundError, ObjectAccessDenied) as error:
            raise _not_downloaded(plan, url, error) from error
        except ObjectError as error:
            raise DeploymentFailed(
                f'Failed to download model data for container "{plan.container_hostname}" from URL: "{url}": '
                f"{error}."
            ) from error
        except artifacts.ArtifactError as error:
            raise DeploymentFailed(
                artifacts.extraction_failure(plan.container_hostname, url, error)
            ) from error
        finally:
            archive.unlink(missing_ok=True)

    async def _fetch_uncompressed(
        self, objects: ObjectStore, plan: VariantPlan, source: Definition, model_dir: Path
    ) -> None:
        url = str(source["S3Uri"])
        single = source.get("S3DataType") == "S3Object"
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        try:
            keys = [prefix] if single else await objects.keys(url)
            if not keys:
                raise DeploymentFailed(f"There are no objects below {url}.")
            names = [artifacts.relative_name(key, None if single else prefix) for key in keys]
            artifacts.check_no_clash(names)
            total = 0
            for key, name in zip(keys, names, strict=True):
                target = model_dir / name
                target.parent.mkdir(parents=True, exist_ok=True)
                total += await objects.download(
                    f"s3://{bucket}/{key}",
                    target,
                    max_bytes=self._settings.max_model_bytes - total,
                    keep_free_bytes=self._settings.disk_reserve_bytes,
                )
        except ObjectTooLarge as error:
            raise DeploymentFailed(
                f"The objects below {url} are larger than the limit of "
                f"{self._settings.max_model_bytes} bytes (setting max_model_bytes)."
            ) from error
        except (FileNotFoundError, ObjectAccessDenied) as error:
            raise _not_downloaded(plan, url, error) from error
        except (ObjectError, artifacts.ArtifactError, OSError) as error:
            raise DeploymentFailed(
                f'Failed to download model data for container "{plan.container_hostname}" from URL: "{url}": '
                f"{error}."
            ) from error

    async def _fetch_submitted_code(
        self,
        worker: FileWorker,
        objects: ObjectStore,
        plan: VariantPlan,
        environment: dict[str, str],
        base_dir: Path,
    ) -> None:
        """The SageMaker SDK may leave user code in an archive of its own, which containers fetch themselves."""
        url = environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
        if url.startswith("s3://"):
            await self._fetch_archive(worker, objects, plan, url, base_dir / "code")
            environment["SAGEMAKER_SUBMIT_DIRECTORY"] = str(base_dir / "code")


def _not_downloaded(
    plan: VariantPlan, url: str, error: FileNotFoundError | ObjectAccessDenied
) -> DeploymentFailed:
    """In AWS's words. What the role may read and is not there is named, too."""
    which = f" ({error})" if isinstance(error, FileNotFoundError) else ""
    return DeploymentFailed(
        f'Failed to download model data for container "{plan.container_hostname}" from URL: "{url}"{which}. '
        "Please ensure that there is an object located at the URL and that the role passed to CreateModel has "
        "permissions to download the object."
    )
