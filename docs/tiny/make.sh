#!/bin/sh
# Makes tiny, the model that comes with the package: a vocabulary, 106 minutes of training on two cores, and the files in
# half precision.
#
#     sh docs/tiny/make.sh CORPUS OUTPUT [OPTIONS]
#
# CORPUS is a folder with train.txt, more.txt and valid.txt. OPTIONS are further options of `numpy-gpt2 train`, which
# override those here; --resume continues a run that was stopped.
set -eu
corpus=$1 output=$2
shift 2
if [ ! -d "$output/vocabulary" ]; then
    numpy-gpt2 vocabulary "$corpus/train.txt" "$corpus/more.txt" --size 4096 --output "$output/vocabulary"
fi
set -- --held-out "$corpus/valid.txt" --evaluate-every 400 --save-every 200 --output "$output/model" "$@"
case " $* " in *" --resume "*) ;; *)
    set -- --vocabulary "$output/vocabulary" --n-layer 4 --n-head 4 --n-embd 256 --n-ctx 256 --optimizer muon \
        --steps 3600 --batch-size 16 --learning-rate 6e-3 --warmup 200 --dropout 0 "$@" ;;
esac
numpy-gpt2 train "$corpus/train.txt" "$corpus/train.txt" "$corpus/train.txt" "$corpus/more.txt" "$@"
python "$(dirname "$0")/pack.py" "$output/model" "$output/vocabulary" "$output/tiny"
