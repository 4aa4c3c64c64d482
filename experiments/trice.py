"""Training Chain-of-Thought via Latent-Variable Inference (TRICE; NeurIPS 2023; arXiv 2312.02179).

A model writes a rationale that ends in an answer; only questions and right answers are given. The gradient of the probability of the right answer is
an expectation over the rationales that lead to it. TRICE keeps one for each question, a Markov chain that takes each right proposal of the model, and
subtracts what a proposal's gradient is on average anyway: a control variate, with which the noise vanishes as the model learns. Learning from right
proposals alone (rejection sampling, policy gradients) neglects questions that are seldom solved. Shown on digits whose parity is the answer and whose
label is the rationale, where the exact gradient is known, and on sums modulo ten that a small decoder works out aloud. As published, the first
rationales are those of a guide that is told the answer; one arm does without, as such a guide may copy the answer behind any reasoning.

    python experiments/trice.py --workers
    python experiments/trice.py --arm "digits subsampled" --set subsample=16,32,64
    python experiments/trice.py --arm "sums TRICE" --arm "sums STaR" --set worked=20,40,80
    python experiments/trice.py --full --data-dir DIR

In full DIR/gsm8k has the released `train.jsonl` and `test.jsonl`, lines {"question": ..., "answer": "... #### 42"} of which the number alone is read,
`prompt.txt` with a few worked examples, and `weights`, a decoder of GPT-2's family. The examples become a soft prompt, which alone is trained.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import data, decoding, encoders, losses, memory, metrics, samplers, study, train


@train.config
class Config:
    task: str = "digits"  # "digits", "sums", or a folder of questions and answers
    method: str = "TRICE"
    subsample: int | None = None  # so many terms of the gradient are computed
    adam: bool = False
    learning_rate: float = 2.0
    fade: bool = False  # of the rate, by a cosine to a tenth
    batch: int = 64
    steps: int = 400
    guide: bool = True  # the first rationales of sums are written with the answer in sight
    wrong: float = 0.3  # how many of the first rationales of digits are drawn at random
    questions: int = 1000  # sums to learn from; as many others are the test
    worked: int = 1000  # sums with a rationale, from which the first model learns
    worked_steps: int = 1000
    seen: int = 7  # digits that they add, 0 to 6: the others it has never met
    width: int = 64
    rounds: int = 5  # of STaR, each with new rationales
    lengths: tuple[int, int, int] = (0, 0, 0)  # in full: tokens of an answer, of a question, of a rationale with its answer


METHODS = "TRICE", "no control variate", "rejection", "policy gradient"
TASKS = {"digits": {}, "sums": dict(task="sums", adam=True, learning_rate=1e-3, steps=600)}
ARMS = {f"{task} {method}": Config(method=method, **how) for task, how in TASKS.items() for method in METHODS}
ARMS |= {f"{task} subsampled": Config(subsample=32, **how) for task, how in TASKS.items()} | {"digits exact": Config(method="exact")}
ARMS |= {f"sums {method}": Config(method=method, **TASKS["sums"]) for method in ("STaR", "direct")}
ARMS |= {"sums TRICE, no guide": Config(guide=False, **TASKS["sums"])}
PLUS, IS, THUS, END = 10, 11, 12, 13  # tokens of sums beside the digits: "3+7+5+9=" and "05:4."


class Task(NamedTuple):
    model: Any
    frozen: Any = None  # a decoder's parameters where a prompt alone is trained
    thus: int = THUS  # the token before the answer
    end: int = END
    length: int = 1  # of a rationale
    rows: int = 1000  # that are written at a time


class World(NamedTuple):
    task: Task
    params: Any  # what is trained
    known: dict  # questions and answers `[N, ...]`, and of texts which tokens a model sees ("real") and which one that is told the answer ("hinted")
    first: Any  # rationales to begin with `[N, T]`
    evaluate: Callable  # a hook


def digits(config, key, fit):
    k_split, k_init, k_right, k_other, k_swap = jax.random.split(key, 5)
    known, test = ({"questions": x, "answers": y[:, None] % 2} for x, y in data.load("digits", key=k_split, split=(1400, 397)))
    model = encoders.MLP((), 10)
    leaves, tree = jax.tree.flatten(model.init(key, known["questions"][:1]))
    params = jax.tree.unflatten(tree, [0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(jax.random.split(k_init), leaves, strict=True)])
    right = known["answers"] + 2 * jax.random.randint(k_right, known["answers"].shape, 0, 5)
    first = jnp.where(jax.random.bernoulli(k_swap, config.wrong, right.shape), jax.random.randint(k_other, right.shape, 0, 10), right)
    return World(Task(model), params, known, first, partial(exactly, model, known, test))


def likelihood(model, params, rows):
    """The logarithm of the probability of the right answer, over all rationales."""
    log_p = jax.nn.log_softmax(model.apply(params, rows["questions"]))
    return jax.nn.logsumexp(jnp.where(jnp.arange(10) % 2 == rows["answers"], log_p, -jnp.inf), axis=1)


@partial(jax.jit, static_argnums=0)
def exactly(model, known, test, key, state):
    found = {"log-likelihood": jnp.mean(likelihood(model, state["params"], known))}
    return state, found | {"accuracy": jnp.mean(jnp.exp(likelihood(model, state["params"], test)))}


@functools.cache
def writer(width):
    return encoders.Decoder(14, width, layers=2, heads=4, max_length=15)


def spelt(given):
    """Sums of four digits modulo ten as tokens: "4:3+7+5+9=", whose first two are a hint, and worked out, one number after the other, "05:4."."""
    totals, (thus, end) = jnp.cumsum(given, axis=1) % 10, (jnp.full((len(given), 1), mark) for mark in (THUS, END))
    asked = jnp.stack([given, jnp.broadcast_to(jnp.array([PLUS, PLUS, PLUS, IS]), given.shape)], axis=2).reshape(-1, 8)
    rows = {"questions": jnp.concatenate([totals[:, 3:], thus, asked], axis=1), "answers": jnp.concatenate([totals[:, 3:], end], axis=1)}
    rows |= {"hinted": jnp.ones((len(given), 10), bool), "real": jnp.tile(jnp.arange(10) >= 2, (len(given), 1))}
    return rows | {"worked": jnp.concatenate([totals[:, 1:3], thus, rows["answers"]], axis=1)}


def sums(config, key, fit):
    """The first model has learnt from sums of few digits that are worked out for it, half of them with the hint."""
    k_sums, k_worked, k_model, k_first = jax.random.split(key, 4)
    given = jax.random.permutation(k_sums, 10_000)[: 2 * config.questions, None] // 10 ** jnp.arange(4) % 10
    known, test, worked = map(spelt, (*jnp.split(given, 2), jax.random.randint(k_worked, (config.worked, 4), 0, config.seen)))
    task = Task(writer(config.width), length=5)
    texts = jnp.tile(jnp.concatenate([worked["questions"], worked["worked"]], axis=1), (2, 1))
    mask = jnp.pad(jnp.concatenate([worked["real"], worked["hinted"]]), ((0, 0), (0, 5)), constant_values=True)
    how = dict(steps=config.worked_steps, mask=mask, batch=32, learning_rate=3e-3, fit=fit)
    params, _ = train.language_model(k_model, task.model, texts, **how)
    if config.method == "direct":  # ":4." and whatever behind it
        first = jnp.concatenate([known["worked"][:, 2:], known["answers"]], axis=1)
    else:
        first = write(task, params, known, known["hinted" if config.guide else "real"], k_first)
    return World(task, params, known, first, partial(by_writing, task, known, test))


def by_writing(task, known, test, key, state):
    right = (correct(task, rows, write(task, state["params"], rows, rows["real"])) for rows in (test, known))
    return state, dict(zip(("accuracy", "known"), map(jnp.mean, right), strict=True))


def folder(config, key, fit):
    root, (told, asked, length) = data.root() / config.task, config.lengths
    model, frozen, tokenizer = encoders.load_pretrained(root / "weights")
    params = frozen["params"]["tokens"][np.array(tokenizer.encode((root / "prompt.txt").read_text()).ids)]
    task = Task(model, frozen, tokenizer.token_to_id("####"), tokenizer.encode("\n").ids[0], length, config.batch)
    known, test = (worded(tokenizer, told, asked, *data.pairs(root / f"{part}.jsonl", columns=("question", "answer"))) for part in ("train", "test"))
    return World(task, params, known, write(task, params, known, known["hinted"], key), partial(by_writing, task, known, test))


def worded(tokenizer, told, asked, questions, answers):
    """Questions as a model sees them, behind the answer as one that is told it sees it."""
    numbers = [answer.rpartition("####")[2].strip() for answer in answers]
    said = data.tokenise(tokenizer, [f" {number}\n" for number in numbers], length=told)
    hints = data.tokenise(tokenizer, [f"The answer is {number}.\n" for number in numbers], length=told + 4)
    prompts = data.tokenise(tokenizer, [f"Question: {question}\nAnswer:" for question in questions], length=asked)
    rows = {"questions": np.concatenate([hints.ids, prompts.ids], axis=1), "answers": np.where(said.mask, said.ids, -1)}
    rows |= {"hinted": np.concatenate([hints.mask, prompts.mask], axis=1), "real": np.concatenate([0 * hints.mask > 0, prompts.mask], axis=1)}
    return jax.tree.map(jnp.asarray, rows)


# What a rationale is: how it is written, whether it is right, and how probable it is.


def parts(task, params, rows):
    """The decoder's parameters, and the prompt in front of the questions where that is what is trained."""
    if task.frozen is None:
        return params, {}
    return task.frozen, {"prefix": jnp.broadcast_to(params, (len(rows["questions"]), *params.shape))}


def propose(task, params, rows, key):
    """One rationale a question `[B, T]`."""
    if isinstance(task.model, encoders.MLP):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows["index"])
        return jax.vmap(jax.random.categorical)(keys, task.model.apply(params, rows["questions"]))[:, None]
    weights, front = parts(task, params, rows)
    how = dict(mask=rows["real"], index=rows["index"], steps=task.length, stop=task.end, greedy=key is None) | front
    return decoding.generate(key, task.model.apply, weights, rows["questions"], **how).tokens


def write(task, params, rows, real, key=None):
    """Rationales for many questions, some at a time; the likeliest tokens where there is no key."""
    count = len(real)
    rows = {"questions": rows["questions"], "real": real, "index": jnp.arange(count)}
    pieces = ({name: x[i : i + task.rows] for name, x in rows.items()} for i in range(0, count, task.rows))
    return jnp.concatenate([propose(task, params, piece, key) for piece in pieces])


def correct(task, rows, tokens):
    """Whether the answer that can be read off rationales is the right one."""
    if isinstance(task.model, encoders.MLP):
        return tokens[:, 0] % 2 == rows["answers"][:, 0]
    wanted = rows["answers"]
    place = jnp.argmax(tokens == task.thus, axis=1)[:, None] + 1 + jnp.arange(wanted.shape[1])
    said = jnp.take_along_axis(tokens, place, axis=1, mode="fill", fill_value=-2)
    return jnp.all((said == wanted) | (wanted < 0), axis=1) & jnp.any(tokens == task.thus, axis=1)


def log_prob(task, params, rows, tokens):
    if isinstance(task.model, encoders.MLP):
        return jnp.take_along_axis(jax.nn.log_softmax(task.model.apply(params, rows["questions"])), tokens, axis=1)[:, 0]
    (weights, front), ends = parts(task, params, rows), tokens == task.end
    mask = jnp.cumsum(ends, axis=1) - ends == 0  # up to the first end
    logits = decoding.continuation_logits(task.model.apply, weights, rows["questions"], tokens, mask=rows["real"], token_mask=mask, **front)
    return losses.sequence_logprob(logits, tokens, mask)


def weigh(task, config, params, old, rows, key):
    """Rationales, whose each is and what it counts in the gradient; and what memory holds from now on."""
    every = jnp.arange(len(old.correct))
    if config.method in ("STaR", "direct"):
        return old.state, every, losses.rejection_coefficients(old.correct, axis_name="data"), old
    k_propose, k_terms = jax.random.split(key)
    tokens = propose(task, params, rows, k_propose)
    right = correct(task, rows, tokens)
    if config.method in ("rejection", "policy gradient"):
        return tokens, every, right * 1.0 if config.method == "policy gradient" else losses.rejection_coefficients(right, axis_name="data"), old
    kept = samplers.independence_step(*old, tokens, right)
    if config.method == "no control variate":
        return kept.state, every, losses.rejection_coefficients(kept.correct, axis_name="data"), kept
    both = jnp.concatenate(losses.trice_coefficients(right, kept.correct, axis_name="data"))
    tokens, every = jnp.concatenate([kept.state, tokens]), jnp.tile(every, 2)
    if config.subsample is None:
        return tokens, every, 2 * both, kept  # their mean is over twice as many
    terms = samplers.subsample_terms(k_terms, both / len(right), config.subsample // jax.lax.axis_size("data"))
    return tokens[terms.index], every[terms.index], terms.weights, kept


def objective(params, task, rows, tokens, whose, weights):
    return losses.mean(losses.reinforce(log_prob(task, params, {name: x[whose] for name, x in rows.items()}, tokens), weights), axis_name="data")


def exact_objective(params, task, rows):
    return -losses.mean(likelihood(task.model, params, rows), axis_name="data")


def optimiser(config):
    rate = (lambda t: config.learning_rate * (0.55 + 0.45 * jnp.cos(jnp.pi * t / config.steps))) if config.fade else config.learning_rate
    return optax.adam(rate) if config.adam else optax.sgd(rate)


def step(task, config, state, batch, key):
    past, found = state["memory"], {}
    old = samplers.Chain(past.tokens[batch["index"]], past.correct[batch["index"]])
    if config.method == "exact":
        grads, kept = jax.grad(exact_objective)(state["params"], task, batch), old
    else:
        *terms, kept = weigh(task, config, state["params"], old, batch, key)
        grads = jax.grad(objective)(state["params"], task, batch, *terms)
    if isinstance(task.model, encoders.MLP):
        exact, grads = jax.lax.pmean((jax.grad(exact_objective)(state["params"], task, batch), grads), "data")
        found["error"] = metrics.grad_variance(jax.tree.map(lambda leaf: leaf[None], grads), exact)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    past = memory.rationales(*past.tokens.shape).update(past, batch["index"], kept.state, kept.correct, axis_name="data")
    return {"params": params, "opt": opt, "memory": past}, found | {"right": jnp.mean(kept.correct)}


def rationalise(task, known, key, state):
    """STaR's rationales: the model's own where they are right, elsewhere those that it writes when it is told the answer."""
    own, told = (write(task, state["params"], known, known[real], k) for real, k in zip(("real", "hinted"), jax.random.split(key), strict=True))
    right = correct(task, known, own)
    tokens = jnp.where(right[:, None], own, told)
    return state | {"memory": memory.RationalesState(tokens, correct(task, known, tokens))}, {}


def run(config, key, fit=train.fit):
    k_world, k_star, k_fit = jax.random.split(key, 3)
    world = {"digits": digits, "sums": sums}.get(config.task, folder)(config, k_world, fit)
    first = memory.RationalesState(world.first.astype(jnp.int32), correct(world.task, world.known, world.first))
    state = {"params": world.params, "opt": optimiser(config).init(world.params), "memory": first}
    after = ((max(1, config.steps // 20), world.evaluate),)
    if config.method == "STaR":
        after = ((max(1, config.steps // config.rounds), refresh := partial(rationalise, world.task, world.known)), *after)
        state, _ = refresh(k_star, state)
    _, start = world.evaluate(k_star, state)
    _, history = fit(k_fit, state, partial(step, world.task, config), train.draws(world.known, config.batch), steps=config.steps, after=after)
    curves = {f"{name} over steps": jnp.concatenate([value[None], history[name]]) for name, value in start.items()}
    found = {name: history[name][-1] for name in start} | curves | {"mean accuracy": jnp.mean(history["accuracy"])}
    if "error" in history:
        parts = history["error"][: config.steps // 20 * 20].reshape(20, -1).mean(axis=1)
        found |= {"error": jnp.mean(history["error"][-50:]), "error over steps": parts}
    return found


def share_of_error(results):
    return results["digits TRICE"]["error"] / results["digits no control variate"]["error"]


def gap(arms, than, results):
    """How far the least log-likelihood of some arms is above the greatest of others."""
    return min(results[arm]["log-likelihood"] for arm in arms) - max(results[arm]["log-likelihood"] for arm in than)


KEEPERS, LOSERS = ("digits TRICE", "digits no control variate"), ("digits rejection", "digits policy gradient")
CLAIMS = [
    study.Claim("digits: the control variate lowers the error of the gradient", share_of_error, None, 0.8, 0.57),
    study.Claim("digits: a memory does not neglect what is hard", partial(gap, KEEPERS, LOSERS), 0.1, expected=0.18),
    study.Claim("digits: TRICE is near the exact gradient", study.gain("log-likelihood", "digits exact", than="digits TRICE"), None, 0.03, 0.017),
    study.Claim("paper: TRICE beats STaR", study.gain("accuracy", "sums TRICE", than="sums STaR")),
    study.Claim("paper: rationales beat direct answers", study.gain("accuracy", "sums TRICE", than="sums direct")),
    study.Claim("paper: TRICE learns sooner than by rejection", study.gain("mean accuracy", "sums TRICE", than="sums rejection")),
    study.Claim("paper: the control variate makes it sooner", study.gain("mean accuracy", "sums TRICE", than="sums no control variate")),
]

FULL = Config(task="gsm8k", subsample=64, adam=True, learning_rate=1.0, fade=True, steps=100, lengths=(8, 128, 256))


def figures(report):
    found = [arm for arm in ARMS if arm in report["arms"]]
    tasks = {task: [arm for arm in found if arm.startswith(task)] for task in TASKS}
    names = {"digits": ["log-likelihood", "accuracy", "error"], "sums": ["accuracy", "known"]}
    steps = dict(xlabel="twentieths of training")
    return {task: study.curves(report, [f"{name} over steps" for name in names[task]], arms, **steps) for task, arms in tasks.items() if arms}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures, vmap=True)
