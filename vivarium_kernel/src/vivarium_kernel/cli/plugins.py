"""The room of ``vivarium plugins``: the table of what can be done about a village's plugins."""

from __future__ import annotations

from vivarium_kernel.cli.lazy import Entry, LazyGroup

plugins = LazyGroup(
    "plugins",
    help="Install, switch, examine and write plugins.",
    no_args_is_help=True,
    sections={
        "Which": {
            "list": Entry("plugins_list:list_", "List the plugins: on, off or failed, and why."),
            "info": Entry("plugins_list:info", "Show what a plugin is, does and can be set to."),
            "hooks": Entry("plugins_list:hooks", "List the hooks, and who implements each."),
            "enable": Entry("plugins_switch:enable", "Switch plugins on, and record them as they are now."),
            "disable": Entry("plugins_switch:disable", "Switch plugins off."),
        },
        "Installing": {
            "install": Entry("plugins_install:install", "Install distributions and record what they bring."),
            "uninstall": Entry("plugins_install:uninstall", "Switch plugins off and uninstall their distributions."),
            "sync": Entry("plugins_install:sync", "Install again what is recorded and missing."),
        },
        "Writing": {
            "new": Entry("plugins_author:new", "Write a new plugin: a complete distribution whose tests pass."),
            "check": Entry(
                "plugins_author:check", "Check that an installed distribution's plugins hold what every plugin must."
            ),
        },
        "Examining": {
            "profile": Entry("plugins_look:profile", "Show what each plugin's hooks cost."),
            "bisect": Entry("plugins_look:bisect", "Find the plugin that breaks a command."),
            "retry": Entry(
                "plugins_look:retry", "Try a plugin again that was switched off, and make up for what it missed."
            ),
        },
    },
)
