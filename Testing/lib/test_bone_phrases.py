"""Phrases about bones: those of bone_phrases.txt, what is said about unclear ones, and the time it takes."""

import builtins
import re
import time
from pathlib import Path

import pytest

from BoneSAMLib import bone_meaning, bone_phrase_names, bone_spelling
from BoneSAMLib.bone_phrase_questions import UnclearPhrase
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.errors import BoneSAMError

# Written out, not read from the table's groups, which are tested with them.
CARPALS = "scaphoid lunate triquetrum pisiform trapezium trapezoid capitate hamate"
CUNEIFORMS = "medial_cuneiform intermediate_cuneiform lateral_cuneiform"
TARSALS = f"calcaneus talus navicular cuboid {CUNEIFORMS}"
THUMB = "hand_phalanx_1_proximal hand_phalanx_1_distal"
BIG_TOE = "foot_phalanx_1_proximal foot_phalanx_1_distal"
LONG_DIGITS = " ".join(f"hand_phalanx_{n}_{row}" for n in "2345" for row in ("proximal", "middle", "distal"))
FINGERS = f"{THUMB} {LONG_DIGITS}"
TOES = f"{BIG_TOE} {LONG_DIGITS.replace('hand', 'foot')}"
OSSICLES = "malleus incus stapes"
SINGLE_SKULL = "frontal_bone occipital_bone sphenoid_bone ethmoid_bone vomer mandible"
PAIRED_SKULL = (
    "parietal_bone temporal_bone maxilla zygomatic_bone nasal_bone lacrimal_bone palatine_bone "
    f"inferior_nasal_concha {OSSICLES}"
)
VERTEBRAE = " ".join(
    f"{letter}{n}" for letter, count in (("c", 7), ("t", 12), ("l", 5)) for n in range(1, count + 1)
)
HAND = f"{CARPALS} metacarpal_1 metacarpal_2 metacarpal_3 metacarpal_4 metacarpal_5 {FINGERS}"
FOOT = f"{TARSALS} metatarsal_1 metatarsal_2 metatarsal_3 metatarsal_4 metatarsal_5 {TOES}"
RIBS = " ".join(f"rib_{n}" for n in range(1, 13))


def both(names):
    return {f"{name}:{side}" for name in names.split() for side in "LR"}


SKULL = set(SINGLE_SKULL.split()) | both(PAIRED_SKULL)
SPINE = {*VERTEBRAE.split(), "sacrum", "coccyx"}
LISTS = {
    "carpals": both(CARPALS),
    "tarsals": both(TARSALS),
    "handphalanges": both(FINGERS),
    "footphalanges": both(TOES),
    # The sesamoids differ between people, but who asks for a foot wants them too.
    "hand": both(f"{HAND} hand_sesamoids"),
    "foot": both(f"{FOOT} foot_sesamoids"),
    "ossicles": both(OSSICLES),
    "cuneiforms": both(CUNEIFORMS),
    "thumb": both(THUMB),
    "bigtoe": both(BIG_TOE),
    "skull": SKULL,
    "spine": SPINE,
    "everything": SKULL
    | SPINE
    | {"hyoid_bone", "sternum"}
    | both(f"{RIBS} {HAND} {FOOT} clavicle scapula humerus radius ulna hip_bone femur patella tibia fibula"),
}


def bones_of(text):
    """The set that a left side of bone_phrases.txt means."""
    bones = set()
    for part in text.split():
        kept, *removed = part.split("-@") if "-@" in part else re.split(r"-(?=[a-z])", part)
        found = one_part(kept)
        for other in removed:
            found -= one_part(f"@{other}" if "-@" in part else other)
        bones |= found
    return bones


def one_part(part):
    name, _, sides = part.partition(":")
    if name.startswith("@"):
        return {bone for bone in LISTS[name[1:]] if not sides or bone[-1] in sides or ":" not in bone}
    counted = re.search(r"\{(\d+)\.\.(\d+)\}", name)
    names = [name]
    if counted:
        numbers = range(int(counted[1]), int(counted[2]) + 1)
        names = [name.replace(counted[0], str(number)) for number in numbers]
    return {f"{one}:{side}" for one in names for side in sides} if sides else set(names)


def phrases():
    for line in (Path(__file__).parent / "bone_phrases.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            meaning, _, texts = line.partition(" = ")
            for text in texts.split(" | "):
                yield meaning.strip(), text.strip()


def answer(phrase):
    """What is understood, in the words of bone_phrases.txt; for a question the names that it offers."""
    try:
        found = understand(phrase)
    except UnclearPhrase as problem:
        return ("asked", set(problem.candidates)) if problem.ambiguous else ("refused", set())
    return "understood", {
        f"{target.bone.id}:{target.side[0].upper()}" if target.side else target.bone.id
        for target in found.targets
    }


def right_answer(meaning):
    if meaning == "?":
        return "refused", set()
    if meaning.startswith("?"):
        table = bone_table()
        return "asked", {{**table.bones, **table.groups}[name].name for name in meaning[1:].split(",")}
    return "understood", bones_of(meaning)


def wrong_answers():
    return [
        (phrase, right_answer(meaning), found)
        for meaning, phrase in phrases()
        if (found := answer(phrase)) != right_answer(meaning)
    ]


def test_500_phrases(capsys):
    texts = [phrase for _, phrase in phrases()]
    assert len(texts) >= 500
    assert len(set(texts)) == len(texts)
    wrong = wrong_answers()
    with capsys.disabled():
        print(f"\n{len(texts)} phrases: {1 - len(wrong) / len(texts):.1%} right")
    assert len(wrong) <= 0.02 * len(texts), wrong


def test_nonsense_is_always_refused():
    nonsense = [phrase for meaning, phrase in phrases() if meaning == "?"]
    assert len(nonsense) >= 80
    assert {phrase: answer(phrase) for phrase in nonsense if answer(phrase)[0] == "understood"} == {}


def test_an_error_as_near_to_one_bone_as_to_another_is_asked_about():
    for word in ("metacarsal", "metatarpal"):
        with pytest.raises(UnclearPhrase, match=r"can mean.*metacarpal.*metatarsal") as raised:
            understand(word)
        assert raised.value.ambiguous


def test_a_long_phrase_takes_no_longer_than_its_length():
    start = time.process_time()
    for count in (10, 20, 30):
        answer("index finger " * count)
    assert time.process_time() - start < 1


def milliseconds_each():
    texts = [phrase for _, phrase in phrases()]
    understand("left femur")  # reads the table
    bone_phrase_names._read.cache_clear()
    bone_spelling.corrections.cache_clear()
    start = time.process_time()
    for text in texts:
        answer(text)
    return 1000 * (time.process_time() - start) / len(texts)


def test_a_phrase_takes_less_than_5_ms(monkeypatch, capsys):
    monkeypatch.setattr(bone_meaning, "_known", lambda: None)
    milliseconds = milliseconds_each()
    with capsys.disabled():
        print(f"\n{milliseconds:.2f} ms a phrase")
    assert milliseconds < 5


def without_rapidfuzz(monkeypatch):
    real = builtins.__import__

    def lacking(name, *arguments, **options):
        if name.split(".")[0] == "rapidfuzz":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", lacking)
    bone_spelling._rapidfuzz.cache_clear()
    assert bone_spelling._rapidfuzz() is None


def test_as_good_without_rapidfuzz_as_in_slicer(monkeypatch, capsys):
    monkeypatch.setattr(bone_meaning, "_known", lambda: None)
    try:
        without_rapidfuzz(monkeypatch)
        milliseconds = milliseconds_each()
        assert wrong_answers() == []
        with pytest.raises(UnclearPhrase) as raised:
            understand("left ankel thing")
        assert str(raised.value).startswith("No bone is called")
    finally:
        bone_spelling._rapidfuzz.cache_clear()
        bone_spelling.corrections.cache_clear()
    with capsys.disabled():
        print(f"\n{milliseconds:.2f} ms a phrase without rapidfuzz")


def test_both_ways_to_compare_words_agree(monkeypatch):
    known = bone_spelling._vocabulary()
    errors = ["femru", "clavical", "metacrapal", "vertabra", "skul", "scapulla", "sternm", "xylophone"]
    fast = [sorted(bone_spelling._within(word, known, 2)) for word in errors]
    assert fast[0]
    try:
        without_rapidfuzz(monkeypatch)
        assert [sorted(bone_spelling._within(word, known, 2)) for word in errors] == fast
    finally:
        bone_spelling._rapidfuzz.cache_clear()


def test_tells_what_it_read_as_what():
    found = understand("lfet tibai")
    assert [target.name for target in found.targets] == ["left tibia"]
    assert found.corrected == {"lfet": "left", "tibai": "tibia"}
    assert understand("left tibia").corrected == {}


@pytest.mark.parametrize(
    ("phrase", "said", "candidates"),
    [
        ("left patella bana", 'No bone is called "patella bana"', "patella"),
        ("T13", "there are T1 vertebra to T12 vertebra", "T12 vertebra"),
        ("knee", "can mean several bones: femur, tibia, patella or fibula. Write which.", "patella"),
        ("acetabulum", "is a part of the hip bone: write that for the whole", "hip bone"),
        ("", "names no bone", None),
        ("without the femur", "only says what to leave out", None),
        ("L2 except L2", "leaves out all the bones that it names", None),
        ("femur " * 100, "too long", None),
    ],
)
def test_says_in_one_sentence_what_is_unclear(phrase, said, candidates):
    with pytest.raises(BoneSAMError) as raised:
        understand(phrase)
    assert said in str(raised.value)
    assert (candidates in raised.value.candidates) if candidates else not raised.value.candidates
