"""What every plugin must hold: the kernel's own suite."""

from vivarium_kernel.testing import Conformance
from vivarium_plugins_weather.plugin import Weather


class TestWeather(Conformance):
    plugin = Weather
