"""Pricing a meta-training by hand."""

from transformers import GPT2Config

from metashot.data.tasks.synthetic import SyntheticSource
from metashot.engine.models.loading import LazyLanguageModel
from metashot.engine.models.sources import named_model
from metashot.engine.training.loop import LoopConfig
from metashot.icl.learning.training_plan import TrainingPlan, plan_training, training_line
from metashot.icl.learning.training_settings import EpisodeConfig, MetaTrainSettings
from metashot.icl.prompting.methods import named_method


def test_flops_by_hand():
    # One layer of width 2 with two heads of size 1, an MLP of width 8, a vocabulary of 10.
    config = GPT2Config(n_embd=2, n_head=2, n_layer=1, n_inner=8, vocab_size=10)
    # A layer holds 4 * 2*2 + 2 * 2*8 = 48 weights. 5 tokens: 2*48*5 = 480 for weights, 2 * 2 * 25 = 100 for
    # attention (queries times keys, weights times values, half of them masked), 2*20*3 = 120 for 3 targets.
    # 700 forward, three times that with backward, 4 steps of 2 sequences: 700 * 3 * 8.
    plan = TrainingPlan(tasks=1, steps=4, batch_size=2, tokens=5, target_tokens=3, longest=5)
    assert plan.flops(config) == 700 * 3 * 8


def test_lengths_come_from_the_sequences_that_training_would_see():
    source = SyntheticSource(train_tasks=4, target_tasks=2)
    episodes = EpisodeConfig(pool_size=8, batch_size=2, micro_batch_size=2)
    settings = MetaTrainSettings(named_method("metaicl"), k=2, episodes=episodes, loop=LoopConfig(steps=5))
    model = LazyLanguageModel(named_model("tiny"))
    plan = plan_training(settings, model, source, source.training_tasks())
    assert (plan.tasks, plan.steps, plan.batch_size) == (4, 5, 2)
    assert 0 < plan.target_tokens < plan.tokens <= plan.longest
    line = training_line(plan, model.spec.read_config(), 8.0)
    assert line.startswith("training: 5 steps of 2 sequences from 4 tasks;")
