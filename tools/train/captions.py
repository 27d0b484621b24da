"""Captions of scenes: several phrasings and synonyms for each thing that a scene can say."""

from __future__ import annotations

import random

from scenes import RELATIONS, Object, Scene

# The first word of each list is the canonical one.
SHAPE_WORDS = {
    "circle": ("circle", "disc", "disk"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star", "five-pointed star"),
    "heart": ("heart", "heart shape"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop", "donut"),
    "diamond": ("diamond", "rhombus"),
}
COLOUR_WORDS = {
    "red": ("red", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green",),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "white": ("white",),
    "black": ("black",),
}
SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized", "mid-sized"),
    "large": ("large", "big", "huge"),
}
RELATION_WORDS = {
    "left of": ("to the left of", "left of", "on the left side of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right side of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath"),
    "inside": ("inside", "within", "in the middle of"),
    "overlapping": ("overlapping", "partly covering", "in front of"),
}
BACKGROUND_WORDS = {
    "grey": ("grey", "gray"),
    "beige": ("beige", "tan"),
    "slate": ("slate", "blue-grey"),
    "sage": ("sage", "grey-green"),
    "mauve": ("mauve", "dusky"),
}
KIND_WORDS = {
    "plain": ("{} background", "plain {} background", "flat {} background"),
    "gradient": ("{} gradient", "{} gradient background", "smooth {} gradient"),
    "striped": ("striped {} background", "{} background with stripes"),
    "checkered": ("checkered {} background", "{} checkerboard"),
    "speckled": ("speckled {} background", "mottled {} background", "textured {} background"),
}
OPENINGS = ("a picture of ", "an image of ", "a drawing of ", "a photo of ", "a scene with ", "there is ", "we see ")
CANONICAL_SHARE = 0.6  # of word choices that take the canonical word


def _word(rng: random.Random, words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 or rng.random() < CANONICAL_SHARE else rng.choice(words)


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


class _Namer:
    """Fixes one set of words per object, so that a second mention uses the same ones."""

    def __init__(self, rng: random.Random, objects: list[Object], size_share: float):
        self.words = []
        for o in objects:
            size = _word(rng, SIZE_WORDS[o.size]) + " " if rng.random() < size_share else ""
            self.words.append((size, _word(rng, COLOUR_WORDS[o.colour]), _word(rng, SHAPE_WORDS[o.shape])))

    def bare(self, index: int) -> str:
        size, colour, shape = self.words[index]
        return f"{size}{colour} {shape}"

    def first(self, index: int) -> str:
        return _article(self.bare(index))

    def again(self, index: int) -> str:
        _, colour, shape = self.words[index]
        return f"the {colour} {shape}"


def _background(rng: random.Random, scene: Scene) -> str:
    colour = _word(rng, BACKGROUND_WORDS[scene.background])
    return _article(_word(rng, KIND_WORDS[scene.background_kind]).format(colour))


def _list(rng: random.Random, phrases: list[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    last = rng.choice((" and ", " and ", ", and ", " with ", " next to ") if len(phrases) == 2 else (" and ", ", and "))
    return ", ".join(phrases[:-1]) + last + phrases[-1]


def _related(rng: random.Random, scene: Scene, name: _Namer) -> str:
    """Sentence body for a scene with one or two relations."""
    a, relation, b = scene.relations[0]
    words = _word(rng, RELATION_WORDS[relation])
    style = rng.random()
    if style < 0.7:
        body = f"{name.first(a)} {words} {name.first(b)}"
    elif style < 0.85:
        body = f"{name.first(a)} is {words} {name.first(b)}"
    else:
        body = f"{name.first(b)} and {name.first(a)}, {name.again(a)} is {words} {name.again(b)}"
    if len(scene.relations) == 2:
        c, second, d = scene.relations[1]
        words = _word(rng, RELATION_WORDS[second])
        joint = rng.choice((", with ", ", and ", " and "))
        return f"{body}{joint}{name.first(c)} {words} {name.again(d)}"
    rest = [i for i in range(len(scene.objects)) if i not in (a, b)]
    if not rest:
        return body
    if rng.random() < 0.7:
        return body + rng.choice((", and ", " and ", ", with ", ", plus ")) + name.first(rest[0])
    return f"{name.first(rest[0])}" + rng.choice((", and ", " and ")) + body


def caption(rng: random.Random, scene: Scene) -> str:
    """One caption; about one in eight is a bare list of the objects."""
    return caption_with_roles(rng, scene)[0]


def caption_with_roles(rng: random.Random, scene: Scene) -> tuple[str, list[tuple[int, list[int]]]]:
    """One caption and, for each object, where its first mention ends (a character) and which roles the caption gives it:
    relation r's subject is role r, its object role len(RELATIONS) + r."""
    text, name, told = _compose(rng, scene)
    roles: list[list[int]] = [[] for _ in scene.objects]
    for a, relation, b in scene.relations if told else []:
        roles[a].append(RELATIONS.index(relation))
        roles[b].append(len(RELATIONS) + RELATIONS.index(relation))
    lowered = text.lower()
    ends = [lowered.find(name.bare(i)) + len(name.bare(i)) for i in range(len(scene.objects))]
    return text, list(zip(ends, roles))


def _compose(rng: random.Random, scene: Scene) -> tuple[str, _Namer, bool]:
    """A caption, its objects' names and whether it tells the relations."""
    if rng.random() < 0.12:
        name = _Namer(rng, scene.objects, 0.2)
        order = rng.sample(range(len(scene.objects)), len(scene.objects))
        return rng.choice((", ", " and ", " ")).join(name.bare(i) for i in order), name, False
    name = _Namer(rng, scene.objects, 0.55)
    told = bool(scene.relations) and rng.random() < 0.95
    if told:
        text = _related(rng, scene, name)
    else:
        order = rng.sample(range(len(scene.objects)), len(scene.objects))
        text = _list(rng, [name.first(i) for i in order])
    if rng.random() < 0.35:
        text = rng.choice(OPENINGS) + text
    if rng.random() < 0.5:
        text += rng.choice((" on ", ", on ", " against ", " in front of ")) + _background(rng, scene)
    if rng.random() < 0.35:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.35:
        text += "."
    return text, name, told


def plain_caption(scene: Scene, with_sizes: bool, with_background: bool) -> str:
    """The canonical wording, used for the evaluation prompts."""

    class First(random.Random):
        def random(self) -> float:
            return 0.0

    rng = First()
    name = _Namer(rng, scene.objects, 1.0 if with_sizes else 0.0)
    used = [i for a, _, b in scene.relations for i in (a, b)]
    parts = []
    for number, (a, relation, b) in enumerate(scene.relations):
        words = RELATION_WORDS[relation][0]
        other = name.first(b) if number == 0 else name.again(b)
        parts.append(f"{name.first(a)} {words} {other}")
    parts += [name.first(i) for i in range(len(scene.objects)) if i not in used]
    if len(parts) == 3:
        text = f"{parts[0]}, {parts[1]} and {parts[2]}"
    elif len(parts) == 2:
        text = parts[0] + (", and " if scene.relations else " and ") + parts[1]
    else:
        text = parts[0]
    return text + (" on " + _background(rng, scene) if with_background else "")
