"""The behaviours of clients that are botocore's: boto3 and aiobotocore, whatever their age."""

from collections.abc import Mapping

from botocore_behaviours.asynchronous import ASYNCHRONOUS
from botocore_behaviours.invoke import INVOKE
from botocore_behaviours.stream import STREAM
from report import Test

BEHAVIOURS: Mapping[str, Test] = {**INVOKE, **STREAM, **ASYNCHRONOUS}
