"""What a wire may be asked for, and the sentence that refuses the rest."""

from __future__ import annotations

import msgspec
import pytest

from timewait.lab.wire.spec import ACKS_TO_SYNS, RESETS, Drop, End, OldKernel, WireSpec, spec


def test_plain_data_becomes_a_spec() -> None:
    made = spec(
        {
            "delay": 0.01,
            "b": {"kernel": {"name": "2.6.32", "knobs": {"tcp_tw_recycle": 1}}},
            "a": {"clock_shift": -500},
            "drop": [{"name": "resets", "flags": ["RST"], "toward": "b"}],
        }
    )
    assert made.b.kernel == OldKernel("2.6.32", {"tcp_tw_recycle": 1})
    assert made == WireSpec(
        delay=0.01, a=End(-500), b=End(kernel=made.b.kernel), drop=(Drop(name="resets", flags=("RST",), toward="b"),)
    )
    assert spec({}) == WireSpec()


def test_it_survives_a_file() -> None:
    made = WireSpec(
        a=End(5, OldKernel("el7", {"tcp_tw_recycle": "1"})), drop=(ACKS_TO_SYNS, RESETS), loss=0.5, pcap="a.pcap"
    )
    assert msgspec.json.decode(msgspec.json.encode(made), type=WireSpec) == made
    with pytest.raises(msgspec.ValidationError, match=r"2\.6\.33.*\$\.a\.kernel"):
        msgspec.json.decode(b'{"a": {"kernel": {"name": "2.6.33"}}}', type=WireSpec)


def test_the_ready_made_drops_are_valid() -> None:
    assert WireSpec(drop=(ACKS_TO_SYNS, RESETS)).drop[1].name == "resets"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"delay": -1}, "delay=-1.0: 0 to 60 seconds"),
        ({"jitter": 61.0}, "jitter=61.0"),
        ({"loss": 1.5}, "loss=1.5: a share is between 0 and 1"),
        ({"reorder": -0.1}, "reorder=-0.1"),
        ({"reorder_by": float("nan")}, "reorder_by=nan"),
        ({"dealy": 1}, "dealy"),
        ({"a": {"clock_shift": 2**32}}, "a timestamp has 32 bits"),
        ({"b": {"kernel": {"name": "2.6.33"}}}, "2.6.33"),
        (
            {"b": {"kernel": {"name": "4.12", "knobs": {"tcp_tw_recycle": 1}}}},
            "tcp_tw_recycle: Linux 4.12.0 does not",
        ),
        ({"b": {"kernel": {"name": "2.6.32", "knobs": {"tcp_tw_recyle": 1}}}}, "tcp_tw_recycle"),
        ({"drop": [{"name": ""}]}, "needs a name"),
        ({"drop": [{"name": "x", "flags": ["URG"]}]}, "no flag 'URG'"),
        ({"drop": [{"name": "x", "flags": ["SYN"], "without": ["SYN"]}]}, "SYN both set and not set"),
        ({"drop": [{"name": "x", "port": 70000}]}, "port=70000"),
        ({"drop": [{"name": "x", "share": 2}]}, "share"),
        ({"drop": [{"name": "x"}, {"name": "x"}]}, "two drops have one name"),
        ({"drop": [{"name": "x", "toward": "c"}]}, "c"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError) as refused:
        spec(settings)
    assert told in str(refused.value)
