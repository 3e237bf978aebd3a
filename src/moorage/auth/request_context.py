"""The condition keys that every request has, whatever it is for."""

from datetime import datetime


def global_context(
    *,
    source_ip: str,
    secure: bool,
    now: datetime,
    region: str,
    user_agent: str | None,
    referer: str | None,
) -> dict[str, str | tuple[str, ...]]:
    """`now` is in UTC. `user_agent` and `referer` are the headers of these names, None if they were not sent."""
    context: dict[str, str | tuple[str, ...]] = {
        "aws:SourceIp": source_ip,
        "aws:SecureTransport": "true" if secure else "false",
        "aws:CurrentTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aws:EpochTime": str(int(now.timestamp())),
        "aws:RequestedRegion": region,
        "aws:ViaAWSService": "false",
    }
    if user_agent is not None:
        context["aws:UserAgent"] = user_agent
    if referer is not None:
        context["aws:Referer"] = referer
    return context
