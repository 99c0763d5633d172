"""Models of any server that speaks OpenAI's chat completions, and what plugins for such servers are built from."""

from vivarium_plugins_openai.asking import body_of, wire_message, wire_tool
from vivarium_plugins_openai.settings import Server, is_address
from vivarium_plugins_openai.wire import Wire, model_info

__all__ = ["Server", "Wire", "body_of", "is_address", "model_info", "wire_message", "wire_tool"]
