"""The shared servers themselves: plain, built-in and ours give the same tokens on a few prompts."""


def test_three_workers_agree(servers, pair):
    prompts = [prompt.token_ids for prompt in pair.prompts(per_kind=1)]
    sampling = {"temperature": 0.0, "max_new_tokens": 96}
    answers = {}
    for worker in ("plain", "builtin", "dflash"):
        client = getattr(servers, worker)().client
        answers[worker] = [answer.token_ids for answer in client.generate_many(prompts, 4, sampling)]
    assert answers["builtin"] == answers["plain"]
    assert answers["dflash"] == answers["plain"]


def test_the_log_says_who_serves(servers):
    ours, theirs = servers.dflash(), servers.builtin()
    assert "DFLASH runs on sglang_dflash.engine.DFlashWorker" in ours.log_path.read_text()
    assert "DFLASH runs on SGLang's built-in worker" in theirs.log_path.read_text()
    assert servers.dflash() is ours


def test_streams_and_reports_rounds(servers, pair):
    prompt = pair.prompts(per_kind=1)[0]
    answer = servers.dflash().client.generate(prompt.token_ids, stream=True)
    assert answer.rounds > 0 and answer.arrivals[-1].tokens == len(answer.token_ids)
    assert sum(answer.correct_drafts_histogram) == answer.rounds
    assert servers.plain().client.generate(prompt.token_ids).rounds == 0
