"""Rules, rewards, scores and bad input of the token tasks, by hand and by trying everything."""

import itertools
import math
from collections import Counter
from functools import cache

import gymnasium as gym
import numpy as np
import pytest
import torch

from seqrl.core import UsageError
from seqrl.core.tokens import BEGIN, END, PAD, token_space
from seqrl.envs.registry import register_all, task
from seqrl.envs.tasks import guesses, rewards, translate
from seqrl.envs.tasks.vocabulary import Vocabulary

register_all()

TRANSLATE, DIALOGUE, CORPUS = (f"seqrl/{name}-v0" for name in ("Translate", "Dialogue", "Corpus"))
device = pytest.mark.parametrize("device", [None, "cpu"], ids=["numpy", "torch"])
kind = pytest.mark.parametrize("xp", [np, torch], ids=["numpy", "torch"])


def batch(env_id, n, seed=0, **options):
    envs = gym.make_vec(env_id, num_envs=n, **options)
    return envs, envs.reset(seed=seed)[0]


def place(envs, **episodes):
    """Put the batch into positions of our choosing; return what is seen there."""
    state = envs.get_state()
    state["episodes"].update({name: np.array(rows) for name, rows in episodes.items()})
    envs.set_state(state)
    return envs.reset(options={"reset_mask": np.zeros(envs.num_envs, bool)})[0]


def play(envs, policy):
    """Returns [N] of the episodes under way by policy(obs, answer, known); it may look at both."""
    total, playing = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    obs = envs.reset(options={"reset_mask": ~playing})[0]
    for _ in range(envs.task.horizon):
        obs, reward, over, _, _ = envs.step(policy(obs, *envs.answer()))
        total += np.where(playing, np.asarray(reward, np.float64), 0)
        playing &= ~np.asarray(over)
    assert not playing.any()
    return total


def close(found, expected, errors=4):
    """The mean of returns is the expected one, up to so many standard errors."""
    return abs(found.mean() - expected) < errors * found.std() / len(found) ** 0.5 + 1e-7


def padded(replies, room):
    return np.array([[*reply, *[PAD] * (room - len(reply))] for reply in replies])


def judged(xp, name, said, right, room=8):
    """A reward of replies, lists of tokens without their END, in NumPy or torch."""
    arrays = [padded([[*x, END][:room] for x in replies], room) for replies in (said, right)]
    found = rewards.REWARDS[name](xp, *(xp.asarray(x) for x in arrays))
    return [float(x) for x in found]


def every_string(letters, longest, shortest=0):
    return [s for n in range(shortest, longest + 1) for s in itertools.product(letters, repeat=n)]


# --- rewards


def levenshtein(one, other):
    """By its definition, letter by letter."""

    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        changed = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(changed, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(one), len(other))


@kind
def test_edit_distances_of_all_short_strings(xp):
    strings = every_string([3, 4, 5], 4)
    pairs = list(itertools.product(strings, strings[::3]))
    found = judged(xp, "edit", *zip(*pairs, strict=True), room=6)
    assert found == [-levenshtein(*pair) for pair in pairs]


@kind
def test_edit_distances_worked_by_hand(xp):
    kitten, sitting = [7, 4, 8, 8, 5, 6], [9, 4, 8, 8, 4, 6, 3]
    assert judged(xp, "edit", [kitten, sitting, [], [3]], [sitting, kitten, [3, 4], [3]]) == [
        *(-3, -3, -2, 0)
    ]


def sentence_bleu(said, right):
    """BLEU by counts of stretches, as in Papineni et al., smoothed as by Lin and Och."""
    if not set(said) & set(right):
        return 0.0
    total = min(0.0, 1 - len(right) / len(said))
    for n in range(1, 5):
        have, want = (
            Counter(tuple(x[i : i + n]) for i in range(len(x) - n + 1)) for x in (said, right)
        )
        more = int(n > 1)
        found = sum(min(count, want[stretch]) for stretch, count in have.items())
        total += math.log((found + more) / max(1, max(0, len(said) - n + 1) + more)) / 4
    return math.exp(total)


@kind
def test_bleu_of_many_pairs(xp):
    """Repeated words too, which count no more often than they are in the right one."""
    strings = every_string([3, 4], 5, 1)
    pairs = list(itertools.product(strings, strings[::2]))
    found = judged(xp, "bleu", *zip(*pairs, strict=True))
    np.testing.assert_allclose(found, [sentence_bleu(*pair) for pair in pairs], rtol=1e-12)


@kind
def test_bleu_worked_by_hand(xp):
    """ "the the the cat" for "the cat sat": stretches of 1, 2, 3 and 4 words."""
    the, cat, sat = 3, 4, 5
    # 2 of 4 words ("the" once); (1 + 1) of (3 + 1) pairs; (0 + 1) of (2 + 1); (0 + 1) of (1 + 1)
    expected = (2 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25
    short = math.exp(1 - 3 / 2) * (2 / 2 * 2 / 2 * 1 * 1) ** 0.25  # "the cat": all, but too short
    said = [[the, the, the, cat], [the, cat], [the, cat, sat], [6], []]
    found = judged(xp, "bleu", said, [[the, cat, sat]] * 5)
    np.testing.assert_allclose(found, [expected, short, 1, 0, 0], rtol=1e-12)


@kind
def test_exact_replies_and_their_accuracy(xp):
    said = [[3, 4, 5], [3, 5, 5], [3, 4], [3, 4, 5, 6], [], [BEGIN]]
    right = [[3, 4, 5]] * 5 + [[3]]
    assert judged(xp, "exact", said, right) == [1, 0, 0, 0, 0, 0]
    # END is a token: of "3 4 END" two of four stand where they should
    expected = [1, 3 / 4, 2 / 4, 3 / 5, 0, 1 / 2]
    np.testing.assert_allclose(judged(xp, "accuracy", said, right), expected)


@kind
@pytest.mark.parametrize("name", rewards.REWARDS)
def test_nothing_is_better_than_the_right_reply(xp, name):
    strings = every_string([3, 4], 3, 1)
    pairs = list(itertools.product(strings, strings))
    found = judged(xp, name, *zip(*pairs, strict=True))
    for (said, right), reward in zip(pairs, found, strict=True):
        assert (reward == rewards.BEST[name]) == (said == right)
        assert reward <= rewards.BEST[name]


def shared(said, right):
    """A reward of a user's: the share of the right words that were said."""
    return len(set(said) & set(right)) / len(set(right))


def broken(said, right):
    return {"a": "much", "b": float("nan")}[said[0]]


@device
def test_a_function_of_a_user_judges_what_is_over(device, monkeypatch):
    heard = []

    def listen(said, right):
        heard.append((said, right))
        return shared(said, right)

    monkeypatch.setitem(globals(), "listen", listen)
    rewards.own_function.cache_clear()
    options = {"shortest": 2, "longest": 2, "reward": f"{__name__}:listen", "device": device}
    envs, obs = batch(TRANSLATE, 2, **options)
    letters = [[chr(94 + token) for token in row] for row in obs["source"].tolist()]
    first = obs["source"][:, 0]
    envs.step(np.asarray(first))
    assert not heard
    last = np.array([END, 3])
    _, reward, over, _, _ = envs.step(last)
    assert heard == [(letters[0][:1], letters[0][::-1])] and over.tolist() == [True, False]
    assert float(reward[0]) == np.float32(0.5) and float(reward[1]) == 0
    assert envs.task.scores() == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:f", "reward 'nowhere:f': ModuleNotFoundError.*; expected module:function"),
        (f"{__name__}:none", "reward '.*:none': AttributeError: .*; expected module:function"),
        (f"{__name__}:TRANSLATE", "reward '.*:TRANSLATE': expected a function, got str"),
    ],
)
def test_a_function_that_is_none_is_refused_before_the_first_step(name, said):
    envs = gym.make_vec(TRANSLATE, num_envs=2, reward=name)  # which imports nothing
    with pytest.raises(UsageError, match=said) as no:
        envs.reset(seed=0)
    assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("b", "returned nan, expected a finite number"),
        ("a", "returned 'much', expected a finite number"),
        ("c", "failed: KeyError: 'c'"),
    ],
)
def test_a_function_that_returns_no_number_is_refused(word, found):
    envs, _ = batch(TRANSLATE, 1, longest=40, reward=f"{__name__}:broken")
    envs.step([3 + ord(word) - ord("a")])
    said = rf"reward .*:broken {found}; it was given \['{word}'\] where .{{1,60}} is right$"
    with pytest.raises(UsageError, match=said):
        envs.step([END])


# --- what is shown and said


@pytest.mark.parametrize(
    ("env_id", "options", "length", "tokens"),
    [
        (TRANSLATE, {}, 8, 29),
        (DIALOGUE, {}, 5 + 7, 7 + 2 + 5 + 8 + 12),
        (CORPUS, {}, 7, 37),
        (CORPUS, {"form": "dialogues"}, 4 + 5, 28),
    ],
)
def test_spaces_are_those_of_networks_that_read_tokens(env_id, options, length, tokens):
    space = token_space(task(env_id, **options).observation_space, "here")
    assert space == (tokens, tokens, length)


@device
def test_translating_letter_by_letter(device):
    envs, _ = batch(TRANSLATE, 2, longest=3, device=device, autoreset_mode="Disabled")
    user = [[[5, 6, 3]], [[4, 4, 7]]]
    right = [[[3, 6, 5, END]], [[7, 4, 4, END]]]
    obs = place(envs, user=user, source=np.array(user)[:, 0], right=right)
    assert obs["previous"].tolist() == [BEGIN, BEGIN]
    assert obs["source"].tolist() == [[5, 6, 3], [4, 4, 7]]
    # the second one goes astray, and is told the right letters of each place all the same
    for action, answer in (([3, PAD], [3, 7]), ([6, BEGIN], [6, 4]), ([5, 9], [5, 4])):
        assert envs.answer()[0].tolist() == answer and bool(envs.answer()[1].all())
        obs, reward, over, _, _ = envs.step(action)
        assert obs["previous"].tolist() == [x if x != BEGIN else PAD for x in action]
        assert not bool(over.any()) and not bool(reward.any())
    obs, reward, over, _, _ = envs.step([END, 8])
    assert reward.tolist() == [1, 0] and over.tolist() == [True, True]  # no room for more
    assert obs["previous"].tolist() == [END, 8]


def test_behind_the_end_nothing_is_known():
    envs, _ = batch(TRANSLATE, 1, shortest=1, longest=3)
    place(envs, user=[[[5, 0, 0]]], source=[[5, 0, 0]], right=[[[5, END, 0, 0]]])
    known = []
    for _ in range(4):
        known.append(bool(envs.answer()[1][0]))
        envs.step([7])
    assert known == [True, True, False, False]


def test_padding_that_is_said_is_no_padding():
    """ "5 PAD END" is not "5 END"."""
    envs, _ = batch(TRANSLATE, 1, shortest=1, longest=2)
    place(envs, user=[[[5, 0]]], source=[[5, 0]], right=[[[5, END, 0]]])
    rewards = [envs.step([action])[1][0] for action in (5, PAD, END)]
    assert rewards == [0, 0, 0]


RULES = {  # by hand; the nouns of the grammar are a, d, g, verbs b, e, adjectives c, f
    "reverse": {"abc": "cba", "zz": "zz"},
    "sort": {"bca": "abc", "bab": "abb"},
    "caesar": {"abc": "def", "xyz": "abc"},
    "grammar": {"cfdbag": "dcfagb", "a": "a", "ca": "ac", "abcdea": "adcabe"},
}


@device
@pytest.mark.parametrize("rule", RULES)
def test_rules_by_hand(rule, device):
    rules = task(TRANSLATE, rule=rule, shortest=1)
    xp = np if device is None else torch
    for source, target in RULES[rule].items():
        letters = xp.asarray([[ord(x) - ord("a") for x in source] + [0] * (8 - len(source))])
        said = rules.translation(xp, letters, xp.asarray([[len(source)]]))
        assert "".join(chr(97 + x) for x in said[0, : len(source)].tolist()) == target


@device
@pytest.mark.parametrize("rule", translate.RULES)
def test_every_source_is_drawn_and_translated(rule, device):
    options = {"rule": rule, "shortest": 1, "longest": 3, "letters": 3, "device": device}
    envs, obs = batch(TRANSLATE, 4_000, **options)
    sources = {tuple(row) for row in obs["source"].tolist()}
    lengths = np.bincount((np.asarray(obs["source"]) != PAD).sum(1))[1:]
    assert abs(lengths - 4_000 / 3).max() < 4 * (4_000 * 2 / 9) ** 0.5
    assert all(PAD not in row[: 3 - row.count(PAD)] for row in sources)  # behind alone
    count = sum(3**n for n in (1, 2, 3))
    assert len(sources) == (count if rule != "grammar" else 1 + 1 + 2)
    assert (play(envs, lambda obs, answer, known: answer) == 1).all()


def said_plainly(rule, letters, count):
    """The translation of letters from 0, one after the other."""
    if rule == "caesar":
        return [(letter + 3) % count for letter in letters]
    if rule != "grammar":
        return letters[::-1] if rule == "reverse" else sorted(letters)
    said, adjectives = [], []
    for letter in letters:
        if letter % 3 == 0:
            said += [letter, *adjectives]
            adjectives = []
        elif letter % 3 == 2:
            adjectives.append(letter)
    return said + [letter for letter in letters if letter % 3 == 1]


@device
@pytest.mark.parametrize("longest, letters", [(1, 26), (8, 5), (40, 3), (40, 26)])
@pytest.mark.parametrize("rule", translate.RULES)
def test_sources_of_any_length_are_translated(rule, longest, letters, device):
    options = {"rule": rule, "shortest": 1, "longest": longest, "letters": letters}
    envs, obs = batch(TRANSLATE, 200, **options, device=device)
    right = envs.get_state()["episodes"]["right"][:, 0]
    for source, reply in zip(obs["source"].tolist(), right.tolist(), strict=True):
        shown = [token - 3 for token in source if token != PAD]
        said = [token + 3 for token in said_plainly(rule, shown, letters)] + [END]
        assert reply == said + [PAD] * (longest + 1 - len(said))


def test_sentences_are_phrases_with_verbs_between():
    rules = task(TRANSLATE, rule="grammar", shortest=1, longest=12)
    _, obs = batch(TRANSLATE, 2_000, rule="grammar", shortest=1, longest=12)
    kinds = {"".join("nva"[(x - 3) % 3] for x in row if x) for row in obs["source"].tolist()}
    assert len(kinds) > 200 and rules.vocabulary.words[0] == "a"
    for sentence in kinds:
        phrases = sentence.split("v")
        assert all(phrase.endswith("n") and set(phrase[:-1]) <= {"a"} for phrase in phrases)


# --- scores


@pytest.mark.parametrize("rule", translate.RULES)
def test_translating_without_memory(rule):
    """By the best chain of letters for each of all sources; and by letting it play."""
    options = {"rule": rule, "shortest": 2, "longest": 4, "letters": 3}
    rules = task(TRANSLATE, **options)
    envs, _ = batch(TRANSLATE, 6_000, **options)
    right = envs.get_state()["episodes"]["right"][:, 0]
    chances = guesses.reactive(right)
    assert close(chances, rules.scores()["memoryless"])
    rng = np.random.default_rng(0)

    def policy(obs, answer, known):
        before = np.concatenate([np.full_like(right[:, :1], BEGIN), right[:, :-1]], 1)
        fits = (before == obs["previous"][:, None]) & (right != PAD)
        drawn = (rng.random(right.shape) * fits).argmax(1)
        return right[np.arange(len(right)), drawn]

    assert close(play(envs, policy), rules.scores()["memoryless"])


@pytest.mark.parametrize("reply", [[3, 4, 3], [3, 3, 4], [3, 3, 3], [3, 4, 5], [4]])
def test_no_chain_says_a_reply_with_a_better_chance(reply):
    """Chances of the next token by the last one, in steps of 1/12."""
    right = [*reply, END]
    pairs = Counter(itertools.pairwise([BEGIN, *right]))
    best = 1.0
    for last in {a for a, _ in pairs}:
        counts = [count for (a, _), count in pairs.items() if a == last]
        grid = itertools.product(range(13), repeat=len(counts))
        chances = [g for g in grid if sum(g) == 12]
        best *= max(
            math.prod((x / 12) ** n for x, n in zip(g, counts, strict=True)) for g in chances
        )
    assert guesses.reactive(padded([right], 6))[0] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("letters", [2, 3])
@pytest.mark.parametrize("rule", ["reverse", "sort"])
def test_patterns_are_all_sources(rule, letters):
    rules = task(TRANSLATE, rule=rule, letters=letters)
    for length in (1, 4):
        sources = np.array(list(itertools.product(range(letters), repeat=length)))
        right = np.sort(sources, 1) if rule == "sort" else sources[:, ::-1]
        right = np.concatenate([right + 3, np.full((len(right), 1), END)], 1)
        expected = guesses.reactive(right).mean()
        assert translate.by_pattern(rules, length) == pytest.approx(expected)


def test_random_replies_are_right_by_chance():
    options = {"shortest": 1, "longest": 2, "letters": 2}
    rules = task(TRANSLATE, **options)
    assert rules.scores()["random"] == pytest.approx((5**-2 + 5**-3) / 2)
    for reward in rewards.REWARDS:
        envs, _ = batch(TRANSLATE, 6_000, reward=reward, **options)
        rng = np.random.default_rng(3)
        found = play(envs, lambda *_, rng=rng: rng.integers(5, size=6_000))
        spread = found.std() * (1 / 6_000 + 1 / 10_000) ** 0.5
        assert abs(found.mean() - envs.task.scores()["random"]) < 4 * spread


# --- dialogue


def test_a_dialogue_word_by_word():
    envs, _ = batch(DIALOGUE, 1, slots=2, values=3, turns=4, replies=2, chat=0.5)
    v = envs.task.vocabulary
    state = envs.get_state()["episodes"]

    def write(text, size):
        return padded([[v.number.get(w, END) for w in text.split()]], size)[0]

    user = ["filler1 slot1 value2 filler0 slot0 value0 .", "what slot1 .", "chat filler2 .",
            "what slot0 ."]  # fmt: skip
    right = ["ok .", "slot1 is value2 .", "reply1.0 reply1.1 reply1.2 .", "slot0 is value0 ."]
    user, right = [[write(x, 7) for x in user]], [[write(x, 5) for x in right]]
    source = [[*user[0][0], *[PAD] * 5]]
    place(envs, user=user, right=right, source=source, asked=[[-1, 1, 2, 0]], used=[[False] * 2])
    assert state["length"] == 4 and len(v) == 7 + 2 + 3 + 8 + 6
    seen, said, paid = [], [], []
    wanted = "ok . slot1 is value1 . reply0.0 reply0.1 reply0.2 . slot0 is value0 .".split()
    for word in wanted:
        obs = envs.reset(options={"reset_mask": [False]})[0]
        answer, known = envs.answer()
        seen.append(" ".join(w for w in v.decode(x for x in obs["source"][0] if x != END).split()))
        said.append((*v.words, *["."] * 3)[int(answer[0]) - 3])
        assert known[0] and (obs["previous"][0] == BEGIN) == (
            not paid or wanted[len(paid) - 1] == "."
        )
        *_, reward, over, _, _ = envs.step([v.number.get(word, END)])
        paid.append(float(reward[0]))
    # to chat the reply that was begun is told, not the one that was drawn
    assert said == "ok . slot1 is value2 . reply1.0 reply0.1 reply0.2 . slot0 is value0 .".split()
    assert seen[2] == "ok what slot1" and seen[6] == "slot1 is value1 chat filler2"
    assert paid == [0, 0.25, *[0] * 3, 0, *[0] * 3, 0.25, *[0] * 3, 0.25] and over[0]


@device
def test_the_user_asks_for_what_was_told(device):
    envs, _ = batch(DIALOGUE, 4_000, device=device)
    rules, state = envs.task, envs.get_state()["episodes"]
    user, right, asked = state["user"], state["right"], state["asked"]
    told = user[:, 0, 1:6:3], user[:, 0, 2:6:3]  # slots, values
    assert (np.sort(told[0], 1) == [7, 8]).all()
    slots = asked[:, 1:] < 2
    assert abs((~slots).mean() - 0.4) < 0.02
    for slot in range(2):
        value = np.where(told[0] == 7 + slot, told[1], 0).sum(1)
        here = asked == slot
        assert (np.where(here, right[:, :, 2], value[:, None]) == value[:, None]).all()
        assert (right[:, :, 0][here] == 7 + slot).all() and (user[:, :, 1][here] == 7 + slot).all()
    replies = (right[:, 1:, 0][~slots] - rules.first_reply) // 3
    counts = np.bincount(replies)
    assert len(counts) == 4 and abs(counts / counts.sum() - 0.25).max() < 0.02
    assert (play(envs, lambda obs, answer, known: answer) > 1 - 1e-6).all()


def best_by_brute_force(rules):
    """The best expected return, over what the user may ask and what may be replied in turn."""

    def value(turn, given):
        if turn == rules.turns:
            return 0.0
        later = value(turn + 1, given)
        slot = 1 / rules.turns + later
        choices = [later]
        for reply in range(rules.replies):
            paid = (1 - rules.penalty * (reply in given)) / rules.turns
            choices.append(paid + value(turn + 1, given | {reply}))
        return rules.chat * max(choices) + (1 - rules.chat) * slot

    return 1 / rules.turns + value(1, frozenset())


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("turns", "replies"), [(2, 1), (3, 1), (4, 2), (6, 3)])
def test_the_optimum_of_a_dialogue_by_brute_force(turns, replies, penalty):
    rules = task(DIALOGUE, turns=turns, replies=replies, penalty=penalty, chat=0.6)
    assert rules.scores()["optimum"] == pytest.approx(best_by_brute_force(rules))


PENALTIES = {"turns": 8, "replies": 2, "penalty": 0.75, "chat": 0.7}


def test_answers_do_not_come_again_where_that_costs():
    envs, _ = batch(DIALOGUE, 6_000, **PENALTIES)
    assert close(play(envs, lambda obs, answer, known: answer), envs.task.scores()["optimum"])


@pytest.mark.parametrize("options", [{}, PENALTIES, {**PENALTIES, "judged": "chat"}])
def test_a_policy_that_hears_the_last_words_alone(options):
    """Guesses values, and draws replies to chat."""
    envs, _ = batch(DIALOGUE, 6_000, **options)
    rules, rng = envs.task, np.random.default_rng(0)

    def policy(obs, answer, known):
        value = (answer >= rules.first_value) & (answer < rules.first_filler)
        reply = (answer >= rules.first_reply) & (obs["previous"] == BEGIN)
        answer = np.where(value, rules.first_value + rng.integers(rules.values, size=6_000), answer)
        return np.where(
            reply, rules.first_reply + 3 * rng.integers(rules.replies, size=6_000), answer
        )

    assert close(play(envs, policy), rules.scores()["memoryless"])


def test_slots_and_chat_are_judged_apart():
    """A policy that is right in all turns but a third of those for slots."""
    found = {}
    for judged_ in ("slots", "chat", "all"):
        envs, _ = batch(DIALOGUE, 6_000, judged=judged_, turns=4)
        rng = np.random.default_rng(0)
        first = envs.task.first_value, envs.task.first_filler

        def policy(obs, answer, known, rng=rng, first=first):
            wrong = (answer >= first[0]) & (answer < first[1]) & (rng.random(6_000) < 1 / 3)
            return np.where(wrong, 3, answer)

        found[judged_] = play(envs, policy)
    assert close(found["slots"], 2 / 3) and close(found["chat"], 1)
    assert close(found["all"], (1 + 3 * (0.4 + 0.6 * 2 / 3)) / 4)


def test_random_words_in_a_tiny_dialogue():
    options = {"slots": 1, "values": 2, "turns": 2, "replies": 2, "chat": 0.5}
    word = 1 / (7 + 1 + 2 + 8 + 6)
    expected = (word**2 + 0.5 * word**4 + 0.5 * 2 * word**4) / 2
    assert task(DIALOGUE, **options).scores()["random"] == pytest.approx(expected)


def test_longer_dialogues_have_the_same_spaces():
    spaces = [task(DIALOGUE, turns=turns).observation_space for turns in (6, 12)]
    assert spaces[0] == spaces[1]


# --- corpus


@pytest.fixture
def pairs(tmp_path):
    def write(text, name="pairs.tsv"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


PAIRS = "ein Hund\ta dog\nzwei Hunde\ttwo dogs\n\nein Huhn\ta hen\nein Hund\ta dog\n"


@device
def test_a_corpus_is_what_its_file_has(pairs, device):
    envs, obs = batch(CORPUS, 500, path=pairs(PAIRS), part="all", device=device)
    v = envs.task.vocabulary
    assert v.words == ("Huhn", "Hund", "Hunde", "a", "dog", "dogs", "ein", "hen", "two", "zwei")
    right = envs.get_state()["episodes"]["right"][:, 0]
    found = Counter(
        (v.decode(x), v.decode(y)) for x, y in zip(obs["source"].tolist(), right, strict=True)
    )
    rows = Counter(tuple(line.split("\t")) for line in PAIRS.split("\n") if line)
    assert found.keys() == rows.keys()
    assert abs(found["ein Hund", "a dog"] / 500 - 1 / 2) < 0.1  # it is there twice


@pytest.mark.parametrize("unit", ["char", "byte"])
def test_units_smaller_than_words(pairs, unit):
    envs, obs = batch(CORPUS, 4, path=pairs("größe\tsize é\nÄ\ta\n"), unit=unit, part="all")
    v = envs.task.vocabulary
    right = envs.get_state()["episodes"]["right"][:, 0]
    found = {(v.decode(x), v.decode(y)) for x, y in zip(obs["source"], right, strict=True)}
    assert found == {("größe", "size é"), ("Ä", "a")}
    assert envs.task.longest == ((5, 6) if unit == "char" else (7, 7))
    assert len(v) == (259 if unit == "byte" else 3 + len(set("größesize éÄa")))


def test_parts_have_no_row_in_common(pairs):
    text = "".join(f"{i} a\t{i % 7} b\n" for i in range(40)) * 2  # each row twice
    parts = {}
    for part in ("train", "test", "all"):
        rules = task(CORPUS, path=pairs(text), part=part, held_out=0.25)
        parts[part] = {tuple(row) for row in rules.data.user[:, 0].tolist()}
        assert len(rules.data.length) == 2 * len(parts[part])
    assert len(parts["train"]) == 30 and len(parts["test"]) == 10
    assert not parts["train"] & parts["test"] and parts["train"] | parts["test"] == parts["all"]
    other = task(CORPUS, path=pairs(text), part="test", held_out=0.25, data_seed=1).data.user
    assert {tuple(row) for row in other[:, 0].tolist()} != parts["test"]


def test_a_row_stays_in_its_part_wherever_it_stands(pairs):
    """No row that was learned from is taken for a test, in another order or beside more rows."""

    def tested(lines):
        rules = task(CORPUS, path=pairs("".join(lines)), held_out=0.25)
        return {turn.texts for row in rules.rows_of("test") for turn in row}

    lines = [f"{i} a\t{i % 7} b\n" for i in range(200)]
    found = tested(lines)
    assert tested(lines[::-1]) == found and len(found) == 50
    more = tested([*lines, *(f"x{i} a\tb\n" for i in range(20))])
    assert len(more) == 55 and len(found - more) + len(more - found) < 5 + 2 * 10


def test_scores_of_a_corpus(pairs):
    rules = task(CORPUS, path=pairs(PAIRS), part="all")
    word = 1 / 13
    assert rules.scores() == {
        "optimum": 1.0,
        "memoryless": 1.0,
        "random": pytest.approx(word**3),
    }
    rules = task(CORPUS, path=pairs("a\tx\na\tx\na\ty y\nb\ty y\n"), part="all")
    assert rules.scores() == {
        "optimum": 0.75,  # one of the three for "a" is wrong
        "random": pytest.approx((2 / 7**2 + 2 / 7**3) / 4),
    }
    assert task(CORPUS, path=pairs("a\tx x\nb\ty\n"), part="all").scores()["memoryless"] == 0.625


CHAT = "hello\nhi you\nbye\nbye now\n\n\nhello\nhi you\nhello\nagain hello you\n"


@device
def test_dialogues_turn_by_turn(pairs, device):
    path = pairs(CHAT)
    envs, _ = batch(CORPUS, 64, path=path, form="dialogues", part="all", device=device)
    v, rules = envs.task.vocabulary, envs.task
    assert (rules.turns, rules.heard, rules.room) == (2, 2, 4)
    total, sources = np.zeros(64), []
    for word in ("hi", "now", None):  # "hi now END" in the first turn
        obs, reward, *_ = envs.step([v.number.get(word, END)] * 64)
        total += np.asarray(reward)
        sources.append({v.decode(x for x in row if x != END) for row in obs["source"].tolist()})
    assert not total.any() and sources[0] == {"hello"}
    assert sources[2] == {"hi now bye", "hi now hello"}  # what was said, not what was right
    assert set(obs["previous"].tolist()) == {BEGIN}
    # half a return for each turn
    assert rules.scores()["optimum"] == 1
    assert (play(envs, lambda obs, answer, known: answer) == 0.5).all()


def test_histories_bound_the_optimum_of_dialogues(pairs):
    text = "a\nx\nb\ny\n\na\nx\nb\nz\n\na\nx\nc\nz\n"
    rules = task(CORPUS, path=pairs(text), form="dialogues", part="all")
    assert rules.scores()["optimum"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_rare_words_are_one_word(pairs):
    path = pairs("a b\tx\n" * 3 + "a c\tx\nd b\ty\n")
    rules = task(CORPUS, path=path, least=2, part="all", held_out=0.4, data_seed=1)
    kept = {"a", "b", "x"}
    assert set(rules.vocabulary.words) == {"<unknown>", *kept}
    assert rules.vocabulary.encode("a zebra b") == [
        rules.vocabulary.number[w] for w in ("a", "<unknown>", "b")
    ]


def test_what_is_kept_reads_other_files_alike(pairs, tmp_path):
    kept = task(CORPUS, path=pairs(PAIRS)).kept()
    other = pairs("zwei Huhn\ttwo hen\nein\ta\n", "other.tsv")
    rules = task(CORPUS, path=other, part="all", **kept)
    assert rules.vocabulary == task(CORPUS, path=pairs(PAIRS)).vocabulary
    assert rules.observation_space == task(CORPUS, path=pairs(PAIRS)).observation_space
    assert len(rules.data.length) == 2
    gone = task(CORPUS, path=str(tmp_path / "gone.tsv"), **kept)  # to talk to, without the file
    assert gone.action_space.n == 13
    words = tmp_path / "words.txt"
    words.write_text("\n".join(kept["vocabulary"]) + "\n")
    again = task(CORPUS, path=other, **{**kept, "vocabulary": str(words)})
    assert again.vocabulary == rules.vocabulary
    unknown = pairs("ein Hund\ta dog\neine Katze\ta cat\n", "third.tsv")
    said = r"third.tsv', line 2: unknown words 'eine', 'Katze'; the vocabulary has 10"
    with pytest.raises(UsageError, match=said):
        task(CORPUS, path=unknown, part="all", **kept)
    long = pairs("ein Hund ein\ta\nein\ta\n", "long.tsv")
    with pytest.raises(UsageError, match=r"line 1: 3 words; expected at most 2 \(longest_source\)"):
        task(CORPUS, path=long, part="all", **kept)


def test_what_a_user_types_is_a_source():
    rules = task(CORPUS, form="dialogues")
    v = rules.vocabulary
    source = rules.hear("how are you", padded([v.encode("you like red")], 4)[0])
    assert v.decode(x for x in source if x != END) == "you like red how are you"
    assert source.dtype == np.int64 and rules.observation_space["source"].contains(source)
    assert rules.hear("hello").tolist() == [v.number["hello"], END, *[PAD] * 7]
    plain = task(CORPUS)
    assert plain.hear("the cat").tolist() == [*plain.vocabulary.encode("the cat"), *[PAD] * 5]
    for text, said in (
        ("", r"text '': 0 words; expected 1 to 7"),
        ("the " * 8, r"8 words; expected 1 to 7"),
        ("the catt", r"unknown word 'catt'; the vocabulary has 34. Did you mean \"cat\"\?"),
    ):
        with pytest.raises(UsageError, match=said):
            plain.hear(text)


def test_words_and_their_numbers():
    v = Vocabulary(("a", "b"))
    assert v.encode("b a a") == [4, 3, 3] and v.decode([4, 3, END, 3]) == "b a"
    assert v.spell([BEGIN, 3, PAD, 4]) == ["<begin>", "a"] and len(v) == 5
    assert Vocabulary(("a", " "), "char").decode([3, 4, 3]) == "a a"


def test_a_run_goes_on_with_the_same_corpus_only(pairs):
    envs, _ = batch(CORPUS, 2, path=pairs(PAIRS))
    state = envs.get_state()
    with pytest.raises(UsageError, match="the saved environments play"):
        batch(CORPUS, 2, path=pairs(PAIRS + "Huhn\then\n"))[0].set_state(state)


# --- bad input


@pytest.mark.parametrize(
    ("env_id", "options", "said"),
    [
        (TRANSLATE, {"rule": "latin"}, "rule 'latin': expected one of reverse, sort, caesar, gr"),
        (TRANSLATE, {"shortest": 0}, "shortest 0: expected a whole number of at least 1"),
        (TRANSLATE, {"longest": 2}, "longest 2: expected a whole number of at least 3"),
        (TRANSLATE, {"letters": 27}, "letters 27: expected at most 26"),
        (TRANSLATE, {"letters": 2, "rule": "grammar"}, "letters 2: expected a whole number of at"),
        (TRANSLATE, {"reward": "rouge"}, "reward 'rouge': expected one of exact, accuracy, bleu"),
        (TRANSLATE, {"reward": 1}, "reward 1: expected one of exact"),
        (DIALOGUE, {"slots": 0}, "slots 0: expected a whole number of at least 1"),
        (DIALOGUE, {"values": 1}, "values 1: expected a whole number of at least 2"),
        (DIALOGUE, {"turns": 1}, "turns 1: expected a whole number of at least 2"),
        (DIALOGUE, {"chat": 2}, "chat 2: expected a number from 0 to 1"),
        (DIALOGUE, {"chat": "often"}, "chat 'often': expected a number from 0 to 1"),
        (DIALOGUE, {"penalty": -1}, "penalty -1: expected a number from 0 to 1"),
        (DIALOGUE, {"judged": "tone"}, "judged 'tone': expected one of all, slots, chat"),
        (
            DIALOGUE,
            {"judged": "chat", "chat": 0},
            "judged 'chat': with chat=0 the user never chats",
        ),
        (DIALOGUE, {"judged": "slots", "chat": 1}, "with chat=1 the user does nothing but chat"),
        (CORPUS, {"form": "csv"}, "form 'csv': expected one of pairs, dialogues"),
        (CORPUS, {"unit": "letter"}, "unit 'letter': expected one of word, char, byte"),
        (CORPUS, {"part": "half"}, "part 'half': expected one of train, test, all"),
        (CORPUS, {"held_out": 0}, "held_out 0: expected a share between 0 and 1"),
        (CORPUS, {"held_out": "half"}, "held_out 'half': expected a share between 0 and 1"),
        (CORPUS, {"least": 0}, "least 0: expected a whole number of at least 1"),
        (CORPUS, {"least": 10**6}, "vocabulary: no words with least=1000000; expected some"),
        (CORPUS, {"unit": "byte", "least": 2}, "unit 'byte': there are 256, known ones; leave out"),
        (CORPUS, {"vocabulary": ["a", "a"]}, "vocabulary: 'a' is there twice; expected each word"),
        (CORPUS, {"vocabulary": "none.txt"}, "vocabulary 'none.txt': there is no such file"),
        (CORPUS, {"longest_source": 0}, "longest_source 0: expected a whole number of at least 1"),
        (CORPUS, {"longest_target": 2}, r"line \d+: \d words; expected at most 2 \(longest_target"),
        (CORPUS, {"path": "none.tsv"}, "path 'none.tsv': there is no such file"),
        (CORPUS, {"reward": "rouge"}, "reward 'rouge': expected one of exact"),
    ],
)
def test_wrong_options_are_told_in_one_line(env_id, options, said, refused):
    refused(said, env_id, **options)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("a\tb\nc\n", {}, ", line 2: no tab; expected SOURCE<TAB>TARGET"),
        ("a\tb\tc\n", {}, ", line 1: 2 tabs; expected SOURCE<TAB>TARGET"),
        ("a\tb\n \tc\n", {}, ", line 2: an empty source; expected text"),
        ("a\tb\nc\t\n", {}, ", line 2: an empty target; expected text"),
        ("a\tb\n", {}, ": 1 pair; expected two or more"),
        ("", {}, ": 0 pairs; expected two or more"),
        (
            "<pad> a\tb\nc\td\n",
            {"vocabulary": ["a", "b", "c", "d"]},
            ", line 1: '<pad>' is no word",
        ),
        ("a\n", {"form": "dialogues"}, ", line 1: a dialogue of 1 line, the last without a reply"),
        ("a\nb\n\na\nb\nc\n", {"form": "dialogues"}, ", line 6: a dialogue of 3 lines, the last"),
        ("a\nb\n", {"form": "dialogues"}, ": 1 dialogue; expected two or more"),
    ],
)
def test_a_file_that_is_no_corpus_is_told_in_one_line(pairs, text, options, said):
    with pytest.raises(UsageError, match=rf"path '.*pairs.tsv'{said}") as no:
        task(CORPUS, path=pairs(text), part="all", **options)
    assert "\n" not in str(no.value)


def test_padding_in_a_file_is_refused(pairs):
    """Also where it would be taken for a word of the vocabulary."""
    with pytest.raises(UsageError, match=r"line 1: '<pad>' is no word: replies are begun, ended"):
        task(CORPUS, path=pairs("<pad> a\tb\nc\td\n"), part="all")
    with pytest.raises(UsageError, match="vocabulary: '<end>' is a token of its own; leave it out"):
        task(CORPUS, vocabulary=["a", "<end>"])
