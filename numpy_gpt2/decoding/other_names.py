"""Options that users of other libraries bring, and what to do here instead."""

from __future__ import annotations

from collections.abc import Iterable

# What follows "is not an option here: ", and the names in transformers that it answers, or in OpenAI's API.
ANSWERS = {
    "temperature=0 takes the likeliest token each time, and any other temperature draws": "do_sample",
    "assign to model.special_ids, which has the tokens that end a text": "eos_token_id",
    "the token that a text begins after is in model.special_ids": "bos_token_id",
    "no token is needed for padding": "pad_token_id",
    "give the prompts as a list, or as the Batch of tokenizer.encode_batch": "attention_mask",
    "give the token ids as the first argument, prompt": "inputs input_ids",
    "use stop": "stop_strings stop_sequences stopping_criteria",
    "use max_new_tokens": "length",
    "use num_return_sequences": "n nsamples",
    "model.stream returns the text piece by piece": "streamer",
    "return_details=True returns the ids and their log-probabilities as well": (
        "return_dict_in_generate output_scores output_logits return_dict logprobs"
    ),
    "model.hidden_states returns them": "output_hidden_states",
    "numpy_gpt2.trace records them": "output_attentions",
    "how much is drafted depends on what was accepted lately": (
        "num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold assistant_early_exit "
        "assistant_lookbehind assistant_ensemble_weight target_lookbehind max_matching_ngram_size speculation_type "
        "is_assistant"
    ),
    "keys and values are always kept, in memory for the whole text": (
        "use_cache past_key_values cache_implementation cache_config max_cache_len low_memory prefill_chunk_size"
    ),
    "there is no beam search": "num_beams num_beam_groups diversity_penalty length_penalty early_stopping",
    "there is no contrastive search": "penalty_alpha",
    "there is no least number of tokens": "min_new_tokens min_length exponential_decay_length_penalty",
    "there is no limit of time: take as many pieces of model.stream as there is time for": "max_time",
    "use repetition_penalty; no n-grams are forbidden": (
        "no_repeat_ngram_size encoder_no_repeat_ngram_size frequency_penalty presence_penalty "
        "encoder_repetition_penalty"
    ),
    "no tokens are forbidden or forced": (
        "bad_words_ids suppress_tokens begin_suppress_tokens force_words_ids constraints sequence_bias logit_bias "
        "forced_bos_token_id forced_eos_token_id logits_processor prefix_allowed_tokens_fn"
    ),
    "the samplers here are temperature, top_k, top_p and min_p": "typical_p epsilon_cutoff eta_cutoff top_h",
    "there is no guidance by a negative prompt": "guidance_scale negative_prompt_ids negative_prompt_attention_mask",
    "give each option by its name": "generation_config",
}

ANSWER_TO = {name: answer for answer, names in ANSWERS.items() for name in names.split()}


def check_other_names(names: Iterable[str]) -> None:
    """Checks that no option has a name of another library's.

    Raises:
        TypeError: one has; the message says what to do here.
    """
    for name in sorted({*names} & ANSWER_TO.keys()):
        raise TypeError(f"{name!r} is not an option here: {ANSWER_TO[name]}")
