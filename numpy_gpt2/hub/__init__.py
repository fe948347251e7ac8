"""The released models: names, folders on disk, and downloads.

`names` says where a model comes from and finds its folder, `files` what each file must be, `huggingface` what the user
has of Hugging Face's; `download` fetches a model, `fetch` one file, and `listing` shows what is on disk.
"""
