"""The service that container runtimes call: CRIU's RPC, one message a packet on a unix socket."""
