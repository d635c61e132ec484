#!/bin/sh
# What a shop's backend does, with curl: a course, a lesson, a recording, a sale, a playback link.
#
#   ORIGIN=http://127.0.0.1:8080 LYCEUM_API_KEY=… examples/shop.sh talk.mp4
#
# `lyceum demo` has an origin, and data/demo/demo.json its admin key. Needs curl and python3.
set -eu

file=${1:?usage: ORIGIN=URL LYCEUM_API_KEY=KEY examples/shop.sh FILE}
origin=${ORIGIN:-http://127.0.0.1:8080}
user=${USER_ID:-ada}

# The key goes to curl by a file descriptor: a command line can be read by every user of the machine.
call() {
    curl --silent --show-error --fail-with-body --config - "$@" <<CONFIG
header = "Authorization: Bearer ${LYCEUM_API_KEY:?set LYCEUM_API_KEY}"
CONFIG
}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
json() { call --header 'Content-Type: application/json' "$@"; }

course=$(json --data '{"title": "Rust in a week"}' "$origin/v1/courses" | field id)
lesson=$(json --data '{"title": "Ownership"}' "$origin/v1/courses/$course/lessons" | field id)
echo "course $course, lesson $lesson"

# The whole file in one body; `lyceum upload` sends it in parts, and goes on after an interruption.
call --request POST --header 'Content-Type: video/mp4' --upload-file "$file" "$origin/v1/lessons/$lesson/media" >/dev/null
echo "uploaded; the state is $(call "$origin/v1/lessons/$lesson" | field state)"

# The sale.
json --request PUT --data "{\"user\": \"$user\", \"course\": \"$course\"}" "$origin/v1/entitlements"
echo "$user has bought the course"

[ "${WAIT:-yes}" = yes ] || exit 0
until [ "$(call "$origin/v1/lessons/$lesson" | field playable)" = True ]; do
    [ "$(call "$origin/v1/lessons/$lesson" | field state)" != failed ] || { echo 'the lesson failed' >&2; exit 1; }
    sleep 1
done
json --data "{\"user\": \"$user\", \"lesson\": \"$lesson\"}" "$origin/v1/playback" | field url
