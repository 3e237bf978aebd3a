"""The controller process: `python -m moorage.runtime.controller_process`, settings in `MOORAGE_SETTINGS`."""

import asyncio
import os
import signal

import uvicorn
import uvloop

from moorage.auth.credentials import read_root_key
from moorage.config import Settings
from moorage.controller.app import create_app
from moorage.controller.feed import Feed
from moorage.controller.fleet import InstanceWorkshop
from moorage.controller.instance_logs import log_routes
from moorage.controller.reconcile import Reconciler
from moorage.launchers.remote import RemoteLauncher
from moorage.runtime import logs
from moorage.storage.database import open_database
from moorage.storage.objects import ObjectStore
from moorage.storage.resources import SqlResourceStore


async def serve(settings: Settings, url: str) -> None:
    """Answer the gateways and reconcile until SIGTERM or SIGINT."""
    database = await open_database(settings.effective_database_url)
    try:
        store = SqlResourceStore(database)
        objects = _objects(settings, url)
        feed = Feed(gateways=settings.workers)
        reconciler = Reconciler(
            settings=settings,
            store=store,
            launcher=RemoteLauncher(settings.launcher_socket),
            feed=feed,
            workshop=InstanceWorkshop(settings=settings, objects=objects),
        )
        app = create_app(
            store=store,
            wake=reconciler.wake,
            instance_counts=reconciler.instance_counts,
            object_exists=objects.exists,
        )
        app.router.routes.extend(log_routes(settings, store))
        await feed.listen(settings.feed_socket)
        reconciling = asyncio.create_task(reconciler.run(lambda: None), name="reconcile")
        try:
            await _answer(app, settings, reconciling)
        finally:
            feed.close()
            reconciling.cancel()
            await asyncio.gather(reconciling, return_exceptions=True)
    finally:
        await database.close()


async def _answer(app: object, settings: Settings, reconciling: "asyncio.Task[None]") -> None:
    """Serve HTTP until a signal comes; a reconciler that dies takes the process with it, to be started anew."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            uds=str(settings.controller_socket),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
        )
    )

    def leave(_: object = None) -> None:
        server.should_exit = True

    reconciling.add_done_callback(leave)
    serving = asyncio.create_task(server.serve(), name="serve HTTP")
    await asyncio.wait({serving, reconciling}, return_when=asyncio.FIRST_COMPLETED)
    await serving
    if reconciling.done() and not reconciling.cancelled():
        reconciling.result()


def _objects(settings: Settings, url: str) -> ObjectStore:
    """Either the S3 of the settings, with the credentials of our environment, or our own, as any client uses it."""
    if settings.s3_endpoint:
        return ObjectStore(
            endpoint=settings.s3_endpoint,
            region=os.environ.get("AWS_REGION", settings.region),
            access_key_id=os.environ.get("AWS_ACCESS_KEY_ID"),
            secret_access_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        )
    key = read_root_key(settings.credentials_file, account_id=settings.account_id)
    return ObjectStore(
        endpoint=url,
        region=settings.region,
        access_key_id=key.access_key_id,
        secret_access_key=key.secret_access_key,
    )


def main() -> None:
    logs.configure("controller")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a ^C is the parent's to pass on
    settings = Settings.from_json(os.environ["MOORAGE_SETTINGS"])
    uvloop.run(serve(settings, os.environ["MOORAGE_URL"]))


if __name__ == "__main__":
    main()
