import signal

if __name__ == "__main__":
    # An interrupt while modules are imported ends us without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from app.main import main

    main()
