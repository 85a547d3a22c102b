"""What runs inside the virtual machine, by Debian's Python and without any package but pywg.

  the guest, its first namespace                  namespace far
+------------------------------------+          +-----------------------------------------+
|  wg0  10.99.0.1/24  fd99:0::1/64   |          |  wg0  10.99.0.2/24  fd99:0::2/64        |
|  wg1  10.99.1.1/24  fd99:1::1/64   |          |  wg1  10.99.1.2/24  fd99:1::2/64        |
|  wg2  10.99.2.1/24  fd99:2::1/64   |          |  wg2  10.99.2.2/24  fd99:2::2/64        |
|     of pywg, or of the kernel      |          |     all of the kernel's driver          |
|                                    |          |  a name server: 10.99.N.2, 192.0.2.2    |
|  up0  192.0.2.1/24, default route  ============  far0  192.0.2.2/24                     |
+------------------------------------+          +-----------------------------------------+
"""
