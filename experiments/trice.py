"""Training Chain-of-Thought via Latent-Variable Inference (TRICE; NeurIPS 2023; arXiv 2312.02179).

A model writes a rationale that ends in an answer; only questions and right answers are given. The gradient of the probability of the right answer is
an expectation over the rationales that lead to it. TRICE keeps one for each question, a Markov chain that takes each right proposal of the model, and
subtracts what a proposal's gradient is on average anyway: a control variate, with which the noise vanishes as the model learns. Learning from right
proposals alone (rejection sampling, policy gradients) neglects questions that are seldom solved. Shown on digits whose parity is the answer and whose
label is the rationale, where the exact gradient is known, and on sums modulo ten that a small decoder works out aloud. As published, the first
rationales are those of a guide that is told the answer; one arm does without, as such a guide may copy the answer behind any reasoning.

    python experiments/trice.py --workers
    python experiments/trice.py --arm "sums TRICE" --arm "sums STaR" --set worked=20,40,80
    python experiments/trice.py --full --data-dir DIR

In full DIR/gsm8k has the released `train.jsonl` and `test.jsonl`, lines {"question": ..., "answer": "... #### 42"} of which the number alone is read,
`prompt.txt` with a few worked examples, and `weights`, a decoder of GPT-2's family. The examples become a soft prompt, which alone is trained.
"""

import functools
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cljax import data, decoding, encoders, losses, memory, metrics, samplers, study, train


@train.config
class Config:
    task: str = "digits"  # "digits", "sums", or a folder of questions and answers
    method: Literal["TRICE", "no control variate", "rejection", "policy gradient", "exact", "STaR", "direct"] = "TRICE"
    subsample: int | None = None  # so many terms of the gradient are computed
    draws: int = 1  # proposals of each question in a step, of rejection and policy gradient
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
    votes: int = 0  # rationales of each question whose most frequent answer is compared too
    lengths: tuple[int, int, int] = (0, 0, 0)  # in full: tokens of an answer, of a question, of a rationale with its answer


METHODS = "TRICE", "no control variate", "rejection", "policy gradient"
TASKS = {"digits": {}, "sums": dict(task="sums", adam=True, learning_rate=1e-3, steps=600)}
ARMS = {f"{task} {method}": Config(method=method, **how) for task, how in TASKS.items() for method in METHODS}
ARMS |= {f"{task} subsampled": Config(subsample=32, **how) for task, how in TASKS.items()} | {"digits exact": Config(method="exact")}
ARMS |= {f"sums {method}": Config(method=method, **TASKS["sums"]) for method in ("STaR", "direct")}
ARMS |= {"sums TRICE, no guide": Config(guide=False, **TASKS["sums"]), "sums rejection of 4": Config(method="rejection", draws=4, **TASKS["sums"])}
decoder = functools.cache(encoders.Decoder)  # one network for all cells: what is compiled for it serves them all


class Task(NamedTuple):
    model: Any
    frozen: Any = None  # a decoder's parameters where a prompt alone is trained
    thus: int = data.SUM_TOKENS.index(":")  # the token before the answer
    end: int = data.SUM_TOKENS.index(".")
    length: int = 1  # of a rationale
    rows: int = 1000  # that are written at a time


def digits(config, key, fit):
    k_split, k_init, k_right, k_other, k_swap = jax.random.split(key, 5)
    known, test = ({"questions": x, "answers": y[:, None] % 2} for x, y in data.load("digits", key=k_split, split=(1400, 397)))
    model = encoders.MLP((), 10)
    params = optax.tree.scale(0.1, optax.tree.random_like(k_init, model.init(key, known["questions"][:1])))
    right = known["answers"] + 2 * jax.random.randint(k_right, known["answers"].shape, 0, 5)
    first = jnp.where(jax.random.bernoulli(k_swap, config.wrong, right.shape), jax.random.randint(k_other, right.shape, 0, 10), right)
    return Task(model), params, known, test, first


def likelihood(model, params, rows):
    return losses.marginal_log_prob(jax.nn.log_softmax(model.apply(params, rows["questions"])), jnp.arange(10) % 2 == rows["answers"])


@partial(jax.jit, static_argnums=0)
def exactly(task, known, test, key, state):
    found = {"log-likelihood": jnp.mean(likelihood(task.model, state["params"], known))}
    return state, found | {"accuracy": jnp.mean(jnp.exp(likelihood(task.model, state["params"], test)))}


def sums(config, key, fit):
    """The first model has learnt from sums of few digits that are worked out for it, half of them with the hint."""
    k_sums, k_worked, k_model, k_first = jax.random.split(key, 4)
    given = jax.random.permutation(k_sums, 10_000)[: 2 * config.questions, None] // 10 ** jnp.arange(4) % 10
    given = *jnp.split(given, 2), jax.random.randint(k_worked, (config.worked, 4), 0, config.seen)
    (known, aloud), (test, _), (seen, worked) = map(data.worked_sums, given)
    task = Task(decoder(len(data.SUM_TOKENS), config.width, layers=2, heads=4, max_length=15), length=5)
    texts = jnp.tile(jnp.concatenate([seen.questions, worked], axis=1), (2, 1))
    mask = jnp.pad(jnp.concatenate([seen.real, seen.hinted]), ((0, 0), (0, 5)), constant_values=True)
    how = dict(steps=config.worked_steps, mask=mask, batch=32, learning_rate=3e-3, fit=fit)
    params, _ = train.language_model(k_model, task.model, texts, **how)
    if config.method == "direct":  # ":4." and whatever behind it
        first = jnp.concatenate([aloud[:, 2:], known.answers], axis=1)
    else:
        first = write(task, params, known.questions, known.hinted if config.guide else known.real, k_first)
    return task, params, known._asdict(), test._asdict(), first


def folder(config, key, fit):
    root, (*lengths, length) = data.root() / config.task, config.lengths
    model, frozen, tokenizer = encoders.load_pretrained(root / "weights")
    params = frozen["params"]["tokens"][jnp.array(tokenizer.encode((root / "prompt.txt").read_text()).ids)]
    task = Task(model, frozen, tokenizer.token_to_id("####"), tokenizer.encode("\n").ids[0], length, config.batch)
    known, test = (data.read_questions(root / f"{part}.jsonl", tokenizer, lengths=tuple(lengths)) for part in ("train", "test"))
    return task, params, known._asdict(), test._asdict(), write(task, params, known.questions, known.hinted, key)


def by_writing(task, known, test, key, state):
    right = (correct(task, rows, write(task, state["params"], rows["questions"], rows["real"])) for rows in (test, known))
    return state, dict(zip(("accuracy", "known"), map(jnp.mean, right), strict=True))


def write(task, params, questions, real, key=None, index=None):
    """One rationale a question `[N, T]`, some at a time; the likeliest tokens where there is no key."""
    index = jnp.arange(len(questions)) if index is None else index
    if isinstance(task.model, encoders.MLP):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return jax.vmap(jax.random.categorical)(keys, task.model.apply(params, questions))[:, None]
    how = dict(steps=task.length, stop=task.end, greedy=key is None)
    draw = partial(decoding.generate, key, *decoder_of(task, params), **how)
    return encoders.in_parts(draw, questions, mask=real, index=index, size=task.rows).tokens


def decoder_of(task, params):
    return (task.model.apply, params) if task.frozen is None else (encoders.prompted(task.model), {"prompt": params, "model": task.frozen})


def correct(task, rows, tokens):
    """Whether the answer that can be read off rationales is the right one."""
    if isinstance(task.model, encoders.MLP):
        return tokens[:, 0] % 2 == rows["answers"][:, 0]
    said = metrics.answer_behind(tokens, task.thus, rows["answers"].shape[1])
    return jnp.all((said == rows["answers"]) | (rows["answers"] < 0), axis=1)


def log_prob(task, params, rows, tokens):
    if isinstance(task.model, encoders.MLP):
        return jnp.take_along_axis(jax.nn.log_softmax(task.model.apply(params, rows["questions"])), tokens, axis=1)[:, 0]
    given = dict(mask=rows["real"], token_mask=decoding.until(tokens, task.end))
    return decoding.continuation_log_probs(*decoder_of(task, params), rows["questions"], tokens, **given).sum(axis=1)


def weigh(task, config, params, old, rows, key):
    """Rationales, whose each is and what it counts in the gradient; and what memory holds from now on."""
    every, shares = jnp.arange(len(old.correct)), partial(losses.rejection_coefficients, axis_name="data")
    if config.method in ("STaR", "direct"):
        return old.state, every, shares(old.correct), old
    *k_propose, k_terms = jax.random.split(key, config.draws + 1)
    proposals = [write(task, params, rows["questions"], rows.get("real"), k, rows["index"]) for k in k_propose]
    tokens, right = jnp.concatenate(proposals), jnp.concatenate([correct(task, rows, one) for one in proposals])
    if config.method in ("rejection", "policy gradient"):
        return tokens, jnp.tile(every, config.draws), right * 1.0 if config.method == "policy gradient" else shares(right), old
    kept = samplers.independence_step(*old, tokens, right)
    if config.method == "no control variate":
        return kept.state, every, shares(kept.correct), kept
    both = jnp.concatenate(losses.trice_coefficients(right, kept.correct, axis_name="data"))
    tokens, every = jnp.concatenate([kept.state, tokens]), jnp.tile(every, 2)
    if config.subsample is None:
        return tokens, every, 2 * both, kept  # their mean is over twice as many
    terms = samplers.subsample_terms(k_terms, both / len(right), config.subsample // jax.lax.axis_size("data"))
    return tokens[terms.index], every[terms.index], terms.weights, kept


def objective(params, task, rows, tokens=None, whose=None, weights=None):
    """Of the exact gradient where there are no rationales."""
    if tokens is None:
        return -losses.mean(likelihood(task.model, params, rows), axis_name="data")
    return losses.mean(losses.reinforce(log_prob(task, params, {name: x[whose] for name, x in rows.items()}, tokens), weights), axis_name="data")


def optimiser(config):
    rate = optax.cosine_decay_schedule(config.learning_rate, config.steps, alpha=0.1) if config.fade else config.learning_rate
    return optax.adam(rate) if config.adam else optax.sgd(rate)


def step(task, config, state, batch, key):
    past, found, descent = state["memory"], {}, jax.grad(objective)
    old = samplers.Chain(past.tokens[batch["index"]], past.correct[batch["index"]])
    *terms, kept = [old] if config.method == "exact" else weigh(task, config, state["params"], old, batch, key)
    grads = descent(state["params"], task, batch, *terms)
    if isinstance(task.model, encoders.MLP):
        exact, grads = jax.lax.pmean((descent(state["params"], task, batch), grads), "data")
        found["error"] = metrics.grad_variance(jax.tree.map(lambda leaf: leaf[None], grads), exact)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    past = memory.rationales(*past.tokens.shape).update(past, batch["index"], kept.state, kept.correct, axis_name="data")
    return {"params": params, "opt": opt, "memory": past}, found | {"right": jnp.mean(kept.correct)}


def rationalise(task, known, key, state):
    """STaR's rationales: the model's own where they are right, elsewhere those that it writes when it is told the answer."""
    seen = zip(("real", "hinted"), jax.random.split(key), strict=True)
    own, told = (write(task, state["params"], known["questions"], known[which], k) for which, k in seen)
    tokens = jnp.where(correct(task, known, own)[:, None], own, told)
    return state | {"memory": memory.RationalesState(tokens, correct(task, known, tokens))}, {}


def run(config, key, fit=train.fit):
    k_world, k_star, k_fit = jax.random.split(key, 3)
    task, params, known, test, first = {"digits": digits, "sums": sums}.get(config.task, folder)(config, k_world, fit)
    evaluate = partial(exactly if config.task == "digits" else by_writing, task, known, test)
    first = memory.RationalesState(first.astype(jnp.int32), correct(task, known, first))
    state, after = {"params": params, "opt": optimiser(config).init(params), "memory": first}, ((max(1, config.steps // 20), evaluate),)
    if config.method == "STaR":
        after = ((max(1, config.steps // config.rounds), refresh := partial(rationalise, task, known)), *after)
        state, _ = refresh(k_star, state)
    _, start = evaluate(k_star, state)
    state, history = fit(k_fit, state, partial(step, task, config), train.draws(known, config.batch), steps=config.steps, after=after)
    found = study.over_steps(history, start) | {"mean accuracy": jnp.mean(history.get("accuracy", start["accuracy"]))}
    if config.votes:
        drawn = [write(task, state["params"], test["questions"], test["real"], k) for k in jax.random.split(k_star, config.votes)]
        chosen = samplers.majority(metrics.answer_behind(jnp.stack(drawn, axis=1), task.thus, test["answers"].shape[1]))
        found["voted"] = jnp.mean(correct(task, test, jnp.stack(drawn)[chosen, jnp.arange(len(chosen))]))
    if "error" in history:
        curve = study.thinned(history, ["error"], points=20)["error"]
        found |= {"error": jnp.mean(history["error"][-50:]), "error over steps": curve}
    return found


KEEPERS, LOSERS = ("digits TRICE", "digits no control variate"), ("digits rejection", "digits policy gradient")
CLAIMS = [
    study.Claim("digits: the control variate lowers the error of the gradient", study.ratio("error", *KEEPERS), None, 0.8, 0.57),
    study.Claim("digits: a memory does not neglect what is hard", study.margin("log-likelihood", KEEPERS, than=LOSERS), 0.1, expected=0.18),
    study.Claim("digits: TRICE is near the exact gradient", study.gain("log-likelihood", "digits exact", than="digits TRICE"), None, 0.03, 0.017),
    study.Claim("paper: TRICE beats STaR", study.gain("accuracy", "sums TRICE", than="sums STaR")),
    study.Claim("paper: rationales beat direct answers", study.gain("accuracy", "sums TRICE", than="sums direct")),
    study.Claim("paper: TRICE learns sooner than by rejection", study.gain("mean accuracy", "sums TRICE", than="sums rejection")),
    study.Claim("paper: the control variate makes it sooner", study.gain("mean accuracy", "sums TRICE", than="sums no control variate")),
]

FULL = Config(task="gsm8k", subsample=64, votes=40, adam=True, learning_rate=1.0, fade=True, steps=100, lengths=(8, 128, 256))


def figures(report):
    tasks = {task: [arm for arm in ARMS if arm.startswith(task) and arm in report["arms"]] for task in TASKS}
    names = {"digits": ["log-likelihood", "accuracy", "error"], "sums": ["accuracy", "known"]}
    steps = dict(xlabel="twentieths of training")
    return {task: study.curves(report, [f"{name} over steps" for name in names[task]], arms, **steps) for task, arms in tasks.items() if arms}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures, vmap=True)
