"""``vivarium plugins hooks`` and ``info`` know the hooks that plugins offer, and who waits for one."""

from __future__ import annotations

from kernel.cli.running import Here
from kernel.plugins.shelf import Shelf, source

OFFER = '''
from vivarium_kernel import hookspec


@hookspec("register")
def register_hats() -> list[str]:
    """Give hats."""
    raise NotImplementedError
'''
GIVES = 'after = ("{}",)\n@hookimpl\ndef {}(self): return ["top"]\n'


def test_hooks_that_plugins_offer_are_listed_with_who_implements_them(shelf: Shelf, here: Here) -> None:
    offers = source("hats", "hookspecs = (register_hats,)\n", marks=shelf.marks, top=OFFER)
    shelf.put_modules("hat-shop", "1.2", {"hats": offers})
    shelf.put("hat-fans", "1.0", fans=GIVES.format("hats", "register_hats"))
    assert "register_hats: Give hats." in here("plugins", "info", "hats").out
    for _ in range(2):  # by looking, and then as it is recorded
        found = {one["hook"]: one for one in here("plugins", "hooks", "--json").document}
        assert (found["register_hats"]["on"], found["register_hats"]["doc"]) == (["fans"], "Give hats. (of hats)")
        assert here("plugins", "hooks", "register_hats", "--json").document == [found["register_hats"]]
        assert here("plugins", "enable", "hats", "fans").status == 0
    assert here("plugins", "disable", "hats").status == 0
    assert "register_hats" not in {one["hook"] for one in here("plugins", "hooks", "--json").document}


def test_info_says_what_an_implementation_waits_for_or_was_meant_to_be(shelf: Shelf, here: Here) -> None:
    offers = source("hats", "hookspecs = (register_hats,)\n", marks=shelf.marks, top=OFFER)
    shelf.put_modules("hat-shop", "1.2", {"hats": offers})
    shelf.put("hat-fans", "1.0", fans=GIVES.format("caps", "register_caps"), foes=GIVES.format("hats", "registr_hats"))
    assert "register_caps waits for caps, which is not on" in here("plugins", "info", "fans").out
    assert "did you mean register_hats (of hats)?" in here("plugins", "info", "foes").out
