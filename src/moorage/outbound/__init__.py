"""What instances with a network of their own may call, and how they reach it.

    instance's namespace ── veth ──► namespace of the outbound process ── redirect ──► relay ── machine's network ──►

An instance's packets go no further than the namespace at the other end of its link. There every TCP connection,
wherever it is meant to go, is redirected to one listener; the relay asks the kernel for the destination and makes
the connection anew from the machine's network, if `policy` allows it. Name lookups go to the machine's name servers.
Everything else ends there.

So nothing of the machine's network is changed: no address, no forwarding, no firewall rule that could disagree with
somebody else's. Everything there is belongs to namespaces that last as long as their processes, and is gone after
`kill -9`.
"""
