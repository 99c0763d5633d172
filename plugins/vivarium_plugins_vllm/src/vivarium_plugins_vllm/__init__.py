"""Models of vLLM servers: priorities, adapters, several servers behind one name, and a server of one's own."""
