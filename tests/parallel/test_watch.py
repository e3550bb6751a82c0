"""Who is missing, on a clock of its own."""

from mpjax.parallel.watch import Ledger


def test_a_silent_process_is_missing_after_the_timeout():
    ledger = Ledger(3, timeout=10, now=0)
    for now in range(1, 30):
        for index in (0, 2):
            ledger.hear(index, spoken=now, updates=5, now=now)
        if now < 9:
            ledger.hear(1, spoken=now, updates=5, now=now)
        else:
            ledger.hear(1, spoken=8, updates=5, now=now)  # its last words still stand there
        assert set(ledger.missing(now)) == ({1} if now > 18 else set()), now


def test_one_that_never_came_is_missing():
    ledger = Ledger(2, timeout=10, now=100)
    ledger.hear(0, 1, 0, now=111)
    assert set(ledger.missing(109)) == set() and set(ledger.missing(111)) == {1}


def test_the_one_that_others_wait_for_is_missing_though_it_speaks():
    """Process 1 hangs in update 5; 0 and 2 have begun the sixth, which never ends."""
    ledger = Ledger(3, timeout=10, now=0)
    for now in range(1, 40):
        ledger.hear(0, now, min(now, 6), now)
        ledger.hear(1, now, min(now, 5), now)
        ledger.hear(2, now, min(now, 6), now)
        assert set(ledger.missing(now)) == ({1} if now > 15 else set()), now
    assert "stood still for 34 s" in ledger.missing(39)[1]


def test_all_standing_together_compile_and_nobody_is_missing():
    ledger = Ledger(2, timeout=10, now=0)
    for now in range(1, 100):
        for index in (0, 1):
            ledger.hear(index, now, 1, now)
    assert ledger.missing(99) == {}
