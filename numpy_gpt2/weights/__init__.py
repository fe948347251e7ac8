"""From files to parameters and back: model folders, configurations, safetensors files, and OpenAI's checkpoints.

`folder` loads and saves a whole model; `config`, `safetensors` and `tensorflow` know one kind of file each.
"""
