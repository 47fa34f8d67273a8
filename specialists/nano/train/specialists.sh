#!/bin/sh
# Makes the specialists that ship with the nano parent, and their table: sh specialists/nano/train/specialists.sh OUT [NANO]
#
# OUT is the folder that run.sh filled: OUT/train/<domain>.jsonl is what masks are made from, OUT/held-out/<domain>.jsonl
# what they are judged on.  NANO holds nano.gguf and README.md (default: the folder above this one); it receives
# specialists/<domain>/, specialists.json and specialists.png, and the part of README.md between its markers.
# COLLEGIUM names the binary (default: collegium from the path), PYTHON one with requirements.txt installed (default:
# python), TOKENS the tokens profiled of each domain, JUDGED the held-out tokens of each domain.  What is done is not
# done again while the parent and the texts stay the same.  `other` is a label for evaluation and never a specialist.
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ ! -d "$1/train" ] || [ ! -d "$1/held-out" ]; then
    echo "usage: sh $0 OUT [NANO]; OUT must hold train/ and held-out/, which train/run.sh makes" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd)
nano=$(cd "${2:-$here/..}" && pwd)
collegium=${COLLEGIUM:-collegium}
python=${PYTHON:-python}
# Before an hour of measuring, not after it.
"$python" -c 'import matplotlib' || { echo "set PYTHON to one with $here/requirements.txt installed" >&2; exit 1; }
home=$out/specialists
mkdir -p "$home" "$nano/specialists"

masks=
for corpus in "$out"/train/*.jsonl; do
    domain=$(basename "$corpus" .jsonl)
    [ "$domain" != other ] || continue
    "$collegium" --home "$home" surgery create --parent "$nano/nano.gguf" --domain "$domain" \
        --corpus "$corpus" --tokens "${TOKENS:-200000}" \
        --held-out "$out/held-out/$domain.jsonl" --held-out-tokens "${JUDGED:-20000}"
    mkdir -p "$nano/specialists/$domain"
    cp "$home/registry/$domain/mask.json" "$home/registry/$domain/manifest.toml" "$nano/specialists/$domain/"
    masks="$masks --mask $nano/specialists/$domain/mask.json"
done

cat "$out"/held-out/*.jsonl > "$home/held-out.jsonl"
# The masks are words of their own; domains have no blanks.
# shellcheck disable=SC2086
"$collegium" --home "$home" surgery evaluate --parent "$nano/nano.gguf" $masks --corpus "$home/held-out.jsonl" \
    --random 3 --seed 1 --tokens "${JUDGED:-20000}" --out "$home/table"
"$python" "$here/table.py" --table "$home/table/table.json" --nano "$nano"
