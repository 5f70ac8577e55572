"""How a client asks a model server: inputs into requests, over REST or gRPC."""
