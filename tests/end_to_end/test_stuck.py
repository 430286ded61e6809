"""A llama-server that a signal stops, under an instance at work."""

import os
import shutil
import signal
import threading

import openai

from tests.end_to_end.test_serving import chat, client, until


def test_a_llama_server_that_is_stopped_is_replaced(start, endless):
    """1. A stream is under way. 2. SIGSTOP. 3. Two more callers ask. Result: the process is ended
    within its time, the caller of the stream gets an error in it, and the others their answers."""
    app = start("--model", str(endless), "--set", "Model/endpoint_name=tiny").ready()
    (stuck,) = app.children
    stream = chat(client(app), tokens=100_000, stream=True)
    next(stream)
    os.kill(stuck, signal.SIGSTOP)
    answers = []

    def ask(**options):
        answer = chat(client(app), **options)
        answers.append("".join(c.choices[0].delta.content or "" for c in answer) if options else "")

    waiting = [threading.Thread(target=ask), threading.Thread(target=ask, kwargs={"stream": True})]
    for thread in waiting:
        thread.start()
    try:
        for _ in stream:
            pass
        told = ""
    except openai.APIError as error:
        told = str(error)
    assert "stopped by a signal (SIGSTOP)" in told
    for thread in waiting:
        thread.join(60)
    assert len(answers) == 2 and any(answers)
    app.line("ERROR tiny llama-server was ended: stopped by a signal")
    assert stuck not in app.children
    assert app.end() == 143


def test_an_instance_ends_while_its_llama_server_is_stopped(start):
    app = start().ready()
    (stuck,) = app.children
    os.kill(stuck, signal.SIGSTOP)
    assert app.end(timeout=20) == 143
    until(lambda: not os.path.exists(f"/proc/{stuck}"))


def test_one_that_is_stopped_before_it_has_counted_a_prompt_is_replaced(start):
    """A prompt that may not fit beside others is counted first."""
    app = start("--set", "Model/endpoint_name=tiny").ready()
    (stuck,) = app.children
    os.kill(stuck, signal.SIGSTOP)
    long = [{"role": "user", "content": "time " * 300}]
    create = client(app).chat.completions.create
    answer = create(model="tiny", messages=long, max_tokens=8)
    assert answer.choices[0].message.content and stuck not in app.children
    app.line("ERROR tiny llama-server was ended: stopped by a signal")


def test_what_is_answered_goes_on_when_somebody_removes_the_folder(start):
    """A user who logs out takes /run/user/UID along. The model is found nevertheless."""
    app = start("--set", "Model/endpoint_name=tiny").ready()
    children = app.children
    stream = iter(chat(client(app), tokens=400, stream=True))
    next(stream)
    shutil.rmtree(app.folders[0])
    again = [chat(client(app), tokens=8) for _ in range(3)]  # by connections of their own
    assert all(answer.choices[0].message.content for answer in again)
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
    assert app.children == children
    assert app.end() == 143


def test_a_folder_that_somebody_has_removed_is_made_anew(start):
    """As a cleaner of /tmp may."""
    app = start("--set", "Model/endpoint_name=tiny").ready()
    (folder,) = app.folders
    (child,) = app.children
    shutil.rmtree(folder)
    os.kill(child, signal.SIGKILL)
    app.line(f"the folder {folder} was removed: it is made anew")
    assert chat(client(app), tokens=8).choices[0].message.content and app.folders == [folder]
    assert app.end() == 143 and app.folders == []
