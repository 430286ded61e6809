import threading

from app.telemetry.logs import KEPT, LONGEST, LogBook


def texts(entries):
    return [entry.text for entry in entries]


def test_lines_come_in_their_order_whoever_they_are_about():
    book = LogBook()
    for number, subject in enumerate(["app", "a", "b", "a", "app"]):
        book.add(0.0, "info", subject, str(number))
    assert texts(book.after(0)) == ["0", "1", "2", "3", "4"]
    seen = book.after(0)[2].number
    assert texts(book.after(seen)) == ["3", "4"]
    assert book.after(book.after(0)[-1].number) == []


def test_a_chatty_model_does_not_push_the_others_lines_out():
    book = LogBook()
    book.add(0.0, "error", "quiet", "it failed")
    for number in range(5 * KEPT):
        book.add(0.0, "info", "chatty", str(number))
    kept = book.after(0)
    assert kept[0].text == "it failed" and len(kept) == KEPT + 1
    assert kept[-1].text == str(5 * KEPT - 1)


def test_a_long_line_is_cut():
    book = LogBook()
    book.add(0.0, "info", "a", "x" * 10 * LONGEST)
    assert book.after(0)[0].text == "x" * LONGEST + "…"


def test_lines_from_several_threads_are_all_there():
    book = LogBook()

    def write(name):
        for number in range(KEPT):
            book.add(0.0, "info", name, str(number))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [entry.number for entry in book.after(0)]
    assert numbers == list(range(1, 4 * KEPT + 1))
