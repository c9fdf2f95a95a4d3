"""The experiment on kinds of attention: equal parameters, and latents as small as a shared head."""

import json

import attention_kinds

from slingshot import sizes


def test_all_kinds_have_the_parameters_of_mha_within_half_a_channel() -> None:
    wanted = sizes.count_parameters(attention_kinds.MHA.sizes()).total
    channel = 3 * attention_kinds.MHA.d_model * attention_kinds.MHA.n_layers
    for run in attention_kinds.runs():
        model, train = attention_kinds.build(run.configuration)
        counted = sum(parameter.numel() for parameter in model.parameters())
        assert abs(counted - wanted) <= channel / 2
        assert train.steps == attention_kinds.STEPS
        assert json.loads(json.dumps(run.configuration)) == run.configuration


def test_the_latent_is_as_small_as_one_shared_head() -> None:
    mqa = attention_kinds.KINDS["MQA"].sizes().attention
    assert attention_kinds.LATENT.cached_elements == mqa.cached_elements
