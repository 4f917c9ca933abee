"""sabiyarn-edge serve: an HTTP server that OpenAI's clients talk to. Needs the extra `serve`."""
