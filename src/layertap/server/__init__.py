"""HTTP server: any layer of one model, to clients of OpenAI, text-embeddings-inference, vLLM and Cohere."""
