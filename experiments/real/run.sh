#!/bin/bash
# All runs in the order of README.md. What is there is kept, so that it may be stopped and started.
#
#   bash experiments/real/run.sh                                       on the cores of this machine
#   timeout -s INT 700 bash experiments/real/run.sh -c experiments/real/gpu.yaml --results DIR --jobs 12
#
# The second line runs twelve side by side on one GPU, for less than twelve minutes.
here=$(dirname "$0")
trap "exit 130" INT
run() { python -m tell_lightning experiment "$here/$1" --only "$2" "${@:3}" || failed=1; }
for task in clinc_travel nl2bash en_pidgin; do
    for folder in tuning same_data few_shot ten_examples same_data_100; do
        run $folder $task- "$@"
    done
done
for task in banking77 advising_sql; do
    for folder in tuning same_data few_shot ten_examples; do
        run $folder $task- "$@"
    done
done
for folder in anchor sft_budgets shuffle own_words ten_times_less; do
    for task in clinc_travel nl2bash; do
        run $folder $task- "$@"
    done
done
for task in is_en en_is halu; do
    run tuning $task- "$@"
    run paper_tasks $task- "$@"
done
exit ${failed:-0}
