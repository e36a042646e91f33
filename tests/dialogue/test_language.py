"""The language of dialogues: what it reads, how it refuses, and that nothing else ever comes out of the parser."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timewait.lab import dialogue
from timewait.lab.dialogue import ScriptError, parse, play_on_model, transcript, values
from timewait.lab.dialogue.language import FLAGS, MOST_BYTES, VERBS
from timewait.lab.dialogue.script import STATES, Call, Count, Expect, Send, State
from timewait.tcp import counters
from timewait.tcp.kernels import KERNELS
from timewait.tcp.knobs import SPANS
from timewait.tcp.segment import ACK, SYN

HEAD = "why Because [some_function]\nkernels all\n"


def test_the_example_of_the_documentation_holds() -> None:
    assert dialogue.__doc__ is not None
    paragraph = next(part for part in dialogue.__doc__.split("\n\n") if part.startswith("    why"))
    script = parse(textwrap.dedent(paragraph))
    assert script.source == "tcp_timewait_state_process"
    assert all(not play_on_model(script, name).differs for name in script.kernels)


def test_every_directive_is_documented() -> None:
    assert dialogue.__doc__ is not None
    with pytest.raises(ScriptError) as refused:
        parse(HEAD + "nonsense\n")
    known = str(refused.value).split("known: ")[1].split(", ")
    assert len(known) == 12
    assert [word for word in known if f"\n`{word} " not in dialogue.__doc__] == []


def test_a_step_says_what_its_line_says() -> None:
    script = parse(
        HEAD + "host listen backlog=3\n"
        "> SYN ACK seq=2^32-1 ack=7 len=9 ts=100-2^31 ecr=5 port=40001   # why not\n"
        "< SYN seq=2+65537 ecr=3\n"
        "[4.19.. el7] count PAWSEstab+2 TW+1\n"
        "state TIME_WAIT 60s armed 0.3s ago port=40002\n"
    )
    call, send, expect, count, state = script.steps
    assert isinstance(call, Call) and (call.verb, call.number, call.socket) == ("listen", 3, "listener")
    assert isinstance(send, Send) and (send.flags, send.seq, send.ack, send.length) == (SYN | ACK, 2**32 - 1, 7, 9)
    assert (send.tsval, send.tsecr, send.port) == (2**31 + 100, 5, 40001)
    assert isinstance(expect, Expect) and (expect.seq, expect.ack, expect.timestamps) == (65539, None, True)
    assert isinstance(count, Count) and count.moved == (("PAWSEstab", 2), ("TW", 1))
    assert count.only == ("el7", *(row.name for row in KERNELS if row.release >= (4, 19)))
    assert isinstance(state, State) and (state.timer, state.age, state.port) == (60.0, 0.3, 40002)
    assert [step.line for step in script.steps] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "does not say why"),
        ("why just so\n", 1, "write `why TEXT [KERNEL FUNCTION]`"),
        ("why a [b]\nwhy c [d]\n", 2, "a second `why`"),
        ("why a [b]\n> SYN seq=1\n", 2, "names no kernels"),
        (HEAD, 3, "has no steps"),
        (HEAD + "> SYM seq=1", 3, "unknown word 'SYM' in a segment; did you mean SYN?"),
        (HEAD + "> syn seq=1", 3, "did you mean SYN?"),
        (HEAD + "> SYN", 3, "needs its sequence number"),
        (HEAD + "> seq=1", 3, "at least one of the flags"),
        (HEAD + "> SYN seq=one", 3, "'one' is no number"),
        (HEAD + "> SYN seq=1 seq=2", 3, "seq is given twice"),
        (HEAD + "> ACK seq=1 ecr=2", 3, "ecr= without ts="),
        (HEAD + "< SYN ts=1", 3, "clock cannot be foretold"),
        (HEAD + "> ACK seq=1 len=2000", 3, "0 to 1400"),
        (HEAD + "[6.18 > SYN seq=1", 3, "not closed"),
        (HEAD + "[6.18]", 3, "no step after the kernels"),
        (HEAD + "[6.19] wait 1s", 3, "nearest: 6.18"),
        ("why a [b]\nkernels 6.18..4.1\n", 2, "no range of kernels"),
        ("why a [b]\nkernels 4.1\n[6.18] wait 1s\n", 3, "none of the script's kernels"),
        (HEAD + "wait 3", 3, "'3' is no duration; write for example 60s"),
        (HEAD + "\n\nwait 1s\nover ipv6", 6, "in front of the first step"),
        (HEAD + "state TIMEWAIT", 3, "did you mean TIME_WAIT?"),
        (HEAD + "state TIME_WAIT 60s ago", 3, "armed 0.3s ago"),
        (HEAD + "count PAWSEstap+1", 3, "did you mean PAWSEstab?"),
        (HEAD + "count PAWSEstab", 3, "write PAWSEstab+1"),
        (HEAD + "host clos", 3, "did you mean close?"),
        (HEAD + "host close", 3, "no socket 'connection' yet"),
        (HEAD + "host accept", 3, "nobody listens"),
        (HEAD + "host listen\nhost connect", 4, "either listens or connects"),
        (HEAD + "host listen\nhost accept A", 4, "write small letters"),
        (HEAD + "host listen fails EADRINUSE", 3, "did you mean EADDRINUSE?"),
        (HEAD + "host listen\nhost linger 5", 4, "0 to 0"),
        (HEAD + "knobs tcp_tw_reus=1", 3, "did you mean tcp_tw_reuse?"),
        (HEAD + "knobs tcp_tw_recycle=1", 3, "has no tcp_tw_recycle"),
        (HEAD + "knobs tcp_tw_reuse=2", 3, "takes 0 to 1"),
        (HEAD + "knobs tcp_rfc1337=1-2 tcp_rfc1337=0", 3, "tcp_rfc1337 stands twice"),
        (HEAD + "given TIMEWAIT", 3, "did you mean TIME_WAIT?"),
        (HEAD + "host listen\ngiven TIME_WAIT", 4, "before any call"),
        (HEAD + "sleep 3", 3, "unknown word 'sleep'"),
        ("x" * (MOST_BYTES + 1), 1, "at most"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_what_to_write(text: str, line: int, says: str) -> None:
    with pytest.raises(ScriptError) as refused:
        parse(text, "a script")
    assert refused.value.line == line
    assert str(refused.value).startswith(f"a script, line {line}: ")
    assert says in refused.value.problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-1", 2**32 - 1),
        ("2^32", 0),
        ("2^31+1", 2**31 + 1),
        ("5000-2^31", 2**31 + 5000),
    ],
)
def test_numbers_are_sums_modulo_2_to_the_32(text: str, value: int) -> None:
    assert values.number(text) == value


def test_durations() -> None:
    assert [values.duration(text) for text in ("300ms", "0.3s", "60s", "2m", "1h", "24d")] == [
        0.3,
        0.3,
        60,
        120,
        3600,
        24 * 86400,
    ]


def test_a_difference_is_shown_beside_the_line() -> None:
    script = parse(HEAD + "host listen\n> SYN seq=1 ts=5\n< SYN ACK seq=0 ack=3 ecr=5\n", "odd")
    played = play_on_model(script, "6.18")
    assert played.differs == "ack is 2, not 3"
    assert transcript(played)[-2].split() == (
        ["!!", "5", "<", "SYN", "ACK", "seq=0", "ack=3", "ecr=5", "<", "SYN", "ACK", "seq=0", "ack=2", "ts", "ecr=5"]
    )
    assert transcript(played)[-1].strip() == "ack is 2, not 3"


@pytest.mark.parametrize(
    ("ending", "number", "text"), [("", 0, "at the end"), ("state SYN_RECV", 5, "state SYN_RECV")]
)
def test_what_no_line_expects_is_a_difference(ending: str, number: int, text: str) -> None:
    played = play_on_model(parse(HEAD + "host listen\n> SYN seq=1\n" + ending), "4.19")
    assert played.differs == "the host sent what no line expects"
    last = played.lines[-1]
    assert (last.number, last.text, last.came) == (number, text, ("< SYN ACK seq=0 ack=2",))


# The fuzzer's words are those of the language, so that it gets past the first line.

_NUMBERS = st.sampled_from(["0", "1", "5000", "2+65537", "2^31", "-1", "2^", "x", "", "99999999999", "?"])
_FIELDS = st.builds("{}={}".format, st.sampled_from(["seq", "ack", "len", "ts", "ecr", "port", "win"]), _NUMBERS)
_SEGMENT = st.lists(st.one_of(st.sampled_from([*FLAGS, "nothing", "ts", "ts=any", "seq=new"]), _FIELDS), max_size=6)
_KERNEL_WORDS = st.sampled_from([row.name for row in KERNELS] + ["all", "..6.14", "4.19..", "..", "7", "el7..4.12"])
_CALL = st.lists(
    st.one_of(
        st.sampled_from([*VERBS, "fails", "EPIPE", "EFOO", "reuse", "listener", "other", "backlog=0", "as"]), _NUMBERS
    ),
    max_size=4,
)
_COUNTS = st.builds("{}+{}".format, st.sampled_from([*counters.NAMES.values(), "Foo"]), _NUMBERS)
_KNOBS = st.builds(
    "{}={}".format, st.sampled_from([*SPANS, "foo"]), st.sampled_from(["0", "1", "2", "-1", "1-2", "x", ""])
)
_STATE = st.lists(st.sampled_from([*STATES, "gone", "60s", "armed", "0.3s", "ago", "port=1", "port=x"]), max_size=5)
_LINES = st.one_of(
    st.builds("> {}".format, _SEGMENT.map(" ".join)),
    st.builds("< {}".format, _SEGMENT.map(" ".join)),
    st.builds("host {}".format, _CALL.map(" ".join)),
    st.builds("count {}".format, st.lists(_COUNTS, max_size=3).map(" ".join)),
    st.builds("knobs {}".format, st.lists(_KNOBS, max_size=2).map(" ".join)),
    st.builds("state {}".format, _STATE.map(" ".join)),
    st.builds(
        "given {}".format,
        st.lists(st.one_of(st.sampled_from([*STATES, "connected", "bound"]), _FIELDS)).map(" ".join),
    ),
    st.sampled_from(
        ["wait 1s", "wait 24d", "wait -1s", "model x", "over ipv6", "over", "why a [b]", "[", "[all]", "#"]
    ),
    st.text(max_size=20),
)
_PREFIXED = st.one_of(_LINES, st.builds("[{}] {}".format, _KERNEL_WORDS, _LINES))


@given(st.lists(_PREFIXED, max_size=12), st.booleans())
@settings(max_examples=400, deadline=None)
def test_only_the_parsers_own_error_comes_out_of_it(lines: list[str], headed: bool) -> None:
    """And whatever it accepts can be played: it may differ, it may not fail."""
    try:
        script = parse((HEAD if headed else "") + "\n".join(lines), "fuzz")
    except ScriptError as error:
        assert 1 <= error.line <= len(lines) + 3
        assert error.problem
        return
    for name in (script.kernels[0], script.kernels[-1]):
        transcript(play_on_model(script, name))


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except ScriptError:
        pass
