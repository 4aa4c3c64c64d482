"""Contrastive Policy Gradient: aligning language models on sequence-level scores in a supervised-friendly fashion (EMNLP 2024; arXiv 2406.19185).

A policy is to earn rewards without going far from a reference, and all that there is to learn from are generations that somebody logged, with scores.
The loss compares two of them: each one's baseline is the other. Its best policy is the right one whoever logged them; that of policy gradients
without a baseline, or with the policy's own value as one, is not, and preferences (IPO, DPO) say only which one is better. Shown on the paper's
bandit with three arms (for thrice its steps, after which all losses stand still), on digits (which answer earns most, out of poor logged ones), and
on a small language model of docstrings that is to write long words.

    python experiments/copg.py --workers
    python experiments/copg.py --arm "digits copg" --arm "text copg" --set beta=0.03,0.1,0.3
    python experiments/copg.py --full --data-dir DIR

In full DIR/tldr has `comparisons.jsonl`, lines {"prompt": ..., "chosen": ..., "rejected": ...} such as of summaries that people compared, and
`prompts.jsonl`, lines {"prompt": ...}, held out; DIR/tldr/weights is a decoder of GPT-2's family, fine-tuned on such texts. A reward model is trained
on the comparisons first and scores them.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cljax import data, decoding, encoders, losses, metrics, samplers, study, train


@train.config
class Config:
    task: str = "digits"  # "bandit", "digits", "text", or a folder of comparisons
    loss: Literal["copg", "ipo", "dpo", "value baseline", "no baseline"] = "copg"
    beta: float = 0.3
    noise: float = 0.0  # of preferences: with 1 the better one is chosen as often as Bradley and Terry say, with 0 always
    learning_rate: float = 1e-3
    warm_up: int = 1
    batch: int = 128
    steps: int = 1500
    logged: int = 16  # generations of each prompt
    prompts: int = 1000  # of the bandit and of text
    held_out: int = 128
    width: int = 64
    vocabulary: int = 1000
    lengths: tuple[int, int] = (8, 16)  # tokens of a prompt, of a generation
    source_steps: int = 450  # of the language model; in full of the reward model
    source_rate: float = 1e-6  # of the reward model


PREFERENCES = {"ipo": losses.ipo, "dpo": losses.dpo}
LOSSES = "copg", *PREFERENCES, "value baseline", "no baseline"  # the last two are policy gradients
BANDIT = dict(task="bandit", beta=0.5, noise=1.0, batch=512, steps=6000, logged=2, prompts=10_000)
TASKS = {"digits": {}, "bandit": BANDIT, "text": dict(task="text", beta=0.03, batch=64, steps=300, logged=8)}
ARMS = {f"{task} {loss}": Config(loss=loss, **how) for task, how in TASKS.items() for loss in LOSSES}
decoder = functools.cache(encoders.Decoder)  # one network for all cells: what is compiled for it serves them all
EARNED, SIDES = np.float32([2.5, 2, 1]), np.float32([[0.1, 0.2, 0.7], [0.05, 0.05, 0.9]])  # of the bandit's arms; what the sides of a pair come from


class World(NamedTuple):
    model: Any
    params: Any  # the reference's, with which the policy begins
    known: dict  # prompts `[N, ...]`, actions or texts `[N, K, ...]`, and their rewards and log-probabilities under the reference `[N, K]`
    evaluate: Callable  # a hook


def bandit(config, key, fit):
    actions = [jax.random.categorical(k, jnp.log(p), shape=(config.prompts,)) for k, p in zip(jax.random.split(key), SIDES, strict=True)]
    known = {"prompts": jnp.zeros((config.prompts, 1)), "table": jnp.tile(EARNED, (config.prompts, 1)), "actions": jnp.stack(actions, axis=1)}
    return choices(config, key, encoders.MLP((), 3), known, jnp.zeros((1, 1)), EARNED[None])


def digits(config, key, fit):
    k_split, k_actions, k_init = jax.random.split(key, 3)
    known, test = data.load("digits", key=k_split, split=(1400, 397))
    tables = [jnp.array([1, 0.5, 0, 0, 0, 0, 0, 0, 0, 0.5])[(jnp.arange(10) - labels[:, None]) % 10] for _, labels in (known, test)]
    behaviour = jnp.log(jnp.where(tables[0] == 1, 0.2, 1.0))  # who logged the actions seldom took the right one
    actions = jax.random.categorical(k_actions, behaviour[:, None], shape=(len(behaviour), config.logged))
    known, model = {"prompts": known[0], "table": tables[0], "actions": actions}, encoders.MLP((config.width,), 10)
    return choices(config, k_init, model, known, test[0], tables[1])


def choices(config, key, model, known, prompts, table):
    """A policy over few actions whose reference is uniform: its last layer is zero, those before it are of He's scale."""
    layers = model.init(key, prompts[:1])["params"]
    scales = {name: 2**0.5 for name in layers} | {list(layers)[-1]: 0.0}
    layers = {name: jax.tree.map(partial(jnp.multiply, scales[name]), layer) for name, layer in layers.items()}
    known["rewards"] = jnp.take_along_axis(known["table"], known["actions"], axis=1)
    known["reference"] = jnp.full(known["rewards"].shape, -jnp.log(table.shape[1]))
    return World(model, {"params": layers}, known, partial(exactly, model, prompts, table, config.beta))


@partial(jax.jit, static_argnums=0)
def exactly(model, prompts, table, beta, key, state):
    logits = model.apply(state["params"], prompts)
    against = logits, jnp.zeros_like(logits), table
    reward, value = (jnp.mean(metrics.kl_regularised_value(*against, beta=b)) for b in (0.0, beta))
    found = {"regret": jnp.mean(metrics.regret(*against, beta=beta)), "value": value, "reward": reward}
    return state, found | {"KL": (reward - value) / beta, "accuracy": jnp.mean(jnp.argmax(logits, axis=1) == jnp.argmax(table, axis=1))}


def docstrings(config, key, fit):
    """A language model, that of `typical_sampling`, goes on from a few tokens; a text earns the share of its tokens that are long words."""
    k_known, k_held_out, k_logged = jax.random.split(jax.random.fold_in(key, 2), 3)
    (first, new), texts = config.lengths, data.docstrings(vocabulary=config.vocabulary, key=jax.random.key(0))
    model = decoder(texts.tokenizer.get_vocab_size(), config.width, layers=2, heads=4, positions="rotary")
    params, _ = train.language_model(key, model, texts.known, steps=config.source_steps, fit=fit)
    known = {"prompts": samplers.stream_windows(k_known, texts.known, config.prompts, first)}
    held_out = {"prompts": samplers.stream_windows(k_held_out, texts.held_out, config.held_out, first)}
    found = decoding.generate(k_logged, model.apply, params, known["prompts"], samples=config.logged, steps=new, head=model.head)
    known |= {"texts": found.tokens, "mask": found.mask, "reference": found.log_probs.sum(axis=2)}
    names = [texts.tokenizer.id_to_token(i) for i in range(model.vocab_size)]
    score = partial(share, jnp.array([len(name) >= 6 and name.isalpha() for name in names]))
    known["rewards"] = score(known)
    return World(model, params, known, partial(by_samples, model, score, params, held_out, dict(steps=new), config.beta))


def share(long, rows):
    return jnp.mean(rows["mask"] & long[rows["texts"]], axis=2)


def comparisons(config, key, fit):
    """Texts that people compared, scored by a reward model of which they preferred."""
    k_head, k_fit = jax.random.split(key)
    root, (first, new) = data.root() / config.task, config.lengths
    model, params, tokenizer = encoders.load_pretrained(root / "weights")
    known = data.comparisons(root / "comparisons.jsonl", tokenizer, lengths=config.lengths)._asdict()
    held_out = data.tokenise(tokenizer, data.pairs(root / "prompts.jsonl", columns=("prompt",))[0][: config.held_out], length=first)
    held_out = {"prompts": held_out.ids, "real": held_out.mask}
    judge = {"decoder": params, "head": jax.random.normal(k_head, (model.features,)) / model.features}
    how = dict(steps=config.source_steps, batch=config.batch, learning_rate=config.source_rate, fit=fit)
    judge, _ = train.reward_model(k_fit, partial(judged, model), judge, known, **how)
    score = partial(judged, model, judge)
    rewards, reference = (encoders.in_parts(of, known, size=16) for of in (score, partial(log_probs, model, params)))
    known, how = known | {"rewards": rewards, "reference": reference}, dict(steps=new, stop=tokenizer.token_to_id("<|endoftext|>"))
    return World(model, params, known, partial(by_samples, model, score, params, held_out, how, config.beta))


@partial(jax.jit, static_argnums=0)
def judged(model, judge, rows):
    """Scores of K continuations of each prompt: a direction in the state of the last token."""
    prompts, texts, given = rows["prompts"], rows["texts"], dict(mask=rows["real"], token_mask=rows["mask"])
    return decoding.final_states(model.apply, judge["decoder"], prompts, texts, **given) @ judge["head"]


@partial(jax.jit, static_argnums=0)
def log_probs(model, params, rows):
    """Of K continuations of each prompt, `[B, K]`."""
    given = dict(mask=rows.get("real"), token_mask=rows["mask"])
    return decoding.continuation_log_probs(model.apply, params, rows["prompts"], rows["texts"], **given).sum(axis=2)


def by_samples(model, score, reference, held_out, how, beta, key, state):
    """What the policy's own texts earn."""
    own = partial(of_samples, model, score, reference, how, state["params"], key)
    reward, kl = map(jnp.mean, encoders.in_parts(own, held_out, jnp.arange(len(held_out["prompts"])), size=128))
    return state | {"earned": reward}, {"value": reward - beta * kl, "reward": reward, "KL": kl}


def of_samples(model, score, reference, how, params, key, rows, index):
    """Rewards of four texts a prompt, and by how much the policy finds them likelier than the reference does."""
    how = dict(mask=rows.get("real"), index=index, samples=4, head=model.head) | how
    texts = decoding.generate(key, model.apply, params, rows["prompts"], **how)
    rows = rows | {"texts": texts.tokens, "mask": texts.mask}
    return score(rows), texts.log_probs.sum(axis=2) - log_probs(model, reference, rows)


def optimiser(config):
    return optax.adam(train.rise_and_fall(config.learning_rate, warm_up=config.warm_up))


def pick(rows, columns):
    return jax.vmap(jnp.take, (0, 0, None))(rows, columns, 0)


def compare(config, own, reference, rewards, baseline, noise):
    """The loss of the arm; log-probabilities and rewards of two generations a prompt are `[B, 2]`."""
    if config.loss == "copg":
        return losses.copg(*own.T, *reference.T, *rewards.T, beta=config.beta)
    if config.loss in PREFERENCES:
        gap = rewards[:, 0] - rewards[:, 1]
        order = jnp.where((gap + config.noise * noise > 0)[:, None], jnp.array([0, 1]), jnp.array([1, 0]))
        return PREFERENCES[config.loss](*pick(own, order).T, *pick(reference, order).T, beta=config.beta, where=gap != 0)
    return losses.reinforce(own, rewards - config.beta * (own - reference) - (baseline if config.loss == "value baseline" else 0.0))


def objective(params, model, config, baseline, batch, key):
    k_pair, k_noise = jax.random.split(key)
    pair = samplers.generation_pairs(k_pair, jnp.ones(batch["rewards"].shape, bool), index=batch["index"])
    rewards, reference = (pick(batch[name], pair) for name in ("rewards", "reference"))
    if "table" in batch:
        log_p = jax.nn.log_softmax(model.apply(params, batch["prompts"]))
        own, baseline = pick(log_p, pick(batch["actions"], pair)), jnp.sum(jnp.exp(log_p) * batch["table"], axis=1, keepdims=True)
    else:
        own = log_probs(model, params, batch | {name: pick(batch[name], pair) for name in ("texts", "mask")})
    noise = jax.vmap(jax.random.logistic)(jax.vmap(jax.random.fold_in, (None, 0))(k_noise, batch["index"]))
    return losses.mean(compare(config, own, reference, rewards, baseline, noise), axis_name="data")


def step(model, config, state, batch, key):
    value, grads = jax.value_and_grad(objective)(state["params"], model, config, state["earned"], batch, key)
    params, opt = train.descend(optimiser(config), grads, state["params"], state["opt"], axis_name="data")
    return state | {"params": params, "opt": opt}, {"loss": value}


def run(config, key, fit=train.fit):
    k_world, k_start, k_fit = jax.random.split(key, 3)
    world = {"bandit": bandit, "digits": digits, "text": docstrings}.get(config.task, comparisons)(config, k_world, fit)
    state = {"params": world.params, "opt": optimiser(config).init(world.params), "earned": jnp.float32(0)}
    state, first = world.evaluate(k_start, state)
    how = dict(steps=config.steps, after=((max(1, config.steps // 10), world.evaluate),))
    _, history = fit(k_fit, state, partial(step, world.model, config), train.draws(world.known, config.batch), **how)
    return study.over_steps(history, first)


def added_regret(arm, results):
    return results[arm]["regret"] - results[arm]["regret over steps"][0]


# How far the value of CoPG's policy is above that of the best of the others, which is how much less regret it has.
LEAD = {task: study.margin("value", f"{task} copg", than=[f"{task} {loss}" for loss in LOSSES[1:]]) for task in ("digits", "text")}
CLAIMS = [
    study.Claim("bandit: CoPG finds the best policy", study.value("regret", "bandit copg"), None, 0.01, 0.0),
    study.Claim("bandit: IPO does not", study.gain("regret", "bandit ipo", than="bandit copg"), 0.1, expected=0.1525),
    study.Claim("bandit: a value baseline does not", study.gain("regret", "bandit value baseline", than="bandit copg"), 0.005, expected=0.0148),
    study.Claim("bandit: without a baseline it ends worse than it began", partial(added_regret, "bandit no baseline"), expected=0.3459),
    study.Claim("digits: CoPG has the least regret", LEAD["digits"], expected=0.026),
    study.Claim("digits: CoPG finds what is right", study.value("accuracy", "digits copg"), 0.8, expected=0.895),
    study.Claim("digits: without a baseline it does so less than by chance", study.value("accuracy", "digits no baseline"), None, 0.1, 0.02),
    study.Claim("digits: value baselines earn more, off the leash", study.gain("reward", "digits value baseline", than="digits copg"), expected=0.28),
    study.Claim("text: CoPG has the greatest value", LEAD["text"]),
    study.Claim("paper: CoPG earns more than IPO", study.gain("reward", "text copg", than="text ipo")),
    study.Claim("paper: IPO earns more than DPO", study.gain("reward", "text ipo", than="text dpo")),
]

FULL = Config("tldr", beta=0.06, learning_rate=1e-6, warm_up=145, steps=1450, logged=2, held_out=1024, lengths=(512, 64), source_steps=1450)


def figures(report):
    tasks = {task: [arm for arm in ARMS if arm.startswith(task) and arm in report["arms"]] for task in TASKS}
    tasks, over = {task: arms for task, arms in tasks.items() if arms}, dict(x="KL over steps", xlabel="KL to the reference, nats")
    drawn = {f"{task} over KL": study.curves(report, ["reward over steps"], arms, **over) for task, arms in tasks.items()}
    return drawn | {task: study.scores(report, ["value", "reward", "KL"], arms) for task, arms in tasks.items()}


if __name__ == "__main__":
    study.main(run, ARMS, CLAIMS, full=FULL, figures=figures, vmap=True)
